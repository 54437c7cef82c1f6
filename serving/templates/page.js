// Runs when the page is loaded. `element` holds templates/ask.html.
const drop = element.querySelector(".drop"), input = drop.querySelector("input"), result = element.querySelector(".result");
const page = element.querySelector(".ask");
let last = 0;
document.documentElement.lang = page.lang;

async function ask(address, body) {
  const mine = ++last;
  drop.classList.add("busy");
  let answer = `<article class="answer"><div class="notice" role="alert"><strong>${page.dataset.failure}</strong></div></article>`;
  try {
    answer = await (await fetch(address, { method: "POST", body })).text();
  } catch (error) {
    console.warn(error);
  }
  if (mine !== last) return;  // the user has sent other files meanwhile
  drop.classList.remove("busy");
  result.innerHTML = answer;
}

function send(files) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  if (files.length) ask("ask", form);
}

input.onchange = () => { send(input.files); input.value = ""; };
drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
drop.ondragleave = () => drop.classList.remove("over");
drop.ondrop = (event) => { event.preventDefault(); drop.classList.remove("over"); send(event.dataTransfer.files); };
for (const button of element.querySelectorAll(".examples button")) button.onclick = () => ask(`ask/${button.dataset.number}`);
