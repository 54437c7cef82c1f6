// Everything on the page is readable without this script. It adds sorting, filters and large pictures.
const text = (cell) => cell.textContent.trim();
const value = (cell) => Number(cell.querySelector("data")?.value ?? NaN);

function compare(one, other) {
  const [a, b] = [value(one), value(other)];
  if (Number.isNaN(a) && Number.isNaN(b)) return text(one).localeCompare(text(other), undefined, { numeric: true });
  if (Number.isNaN(a)) return 1; // blank cells stay at the end
  return Number.isNaN(b) ? -1 : a - b;
}

function sort(table, header, column) {
  const falling = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, other) => (falling ? -1 : 1) * compare(one.cells[column], other.cells[column]));
  table.tBodies[0].append(...rows);
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.className = "sort";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(table, header, column));
    header.append(button);
  });
}

function makeFilter(table) {
  const field = document.createElement("input");
  field.type = "search";
  field.className = "filter";
  field.placeholder = words.filter;
  field.setAttribute("aria-label", `${words.filter}: ${text(table.caption)}`);
  field.addEventListener("input", () => {
    for (const row of table.tBodies[0].rows) row.hidden = !text(row).toLowerCase().includes(field.value.toLowerCase());
  });
  table.parentElement.before(field);
}

for (const table of document.querySelectorAll("table:not(.confusion)")) {
  const rows = table.tBodies[0].rows.length;
  if (rows > 1 && table.tHead.rows.length === 1) makeSortable(table);
  if (rows > 7) makeFilter(table);
}

const box = document.createElement("dialog");
box.className = "box";
box.setAttribute("aria-label", words.enlarge);
box.innerHTML = "<form method=dialog><button></button></form><figure></figure>";
box.querySelector("button").textContent = words.close;
box.addEventListener("click", (event) => event.target === box && box.close());
document.body.append(box);

for (const figure of document.querySelectorAll(".gallery figure")) {
  const picture = figure.querySelector("img");
  if (!picture) continue;
  const button = document.createElement("button");
  button.className = "enlarge";
  button.setAttribute("aria-label", `${words.enlarge}: ${picture.alt}`);
  button.textContent = "+";
  const show = () => {
    box.querySelector("figure").replaceChildren(...[...figure.children].filter((part) => part !== button).map((part) => part.cloneNode(true)));
    box.showModal();
  };
  button.addEventListener("click", show);
  for (const image of figure.querySelectorAll("img")) image.addEventListener("click", show);
  figure.append(button);
}
