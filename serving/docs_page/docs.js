// Show openapi.json with Swagger UI. All addresses are relative: the page works behind a prefix.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

// Name what Swagger UI 5.32 leaves without a name for screen readers, and let the keyboard scroll.
function name() {
  for (const title of document.querySelectorAll("h3.opblock-tag")) title.ariaLevel = "2";
  for (const title of document.querySelectorAll("h4.opblock-title")) title.ariaLevel = "3";
  for (const button of document.querySelectorAll(".copy-to-clipboard > button")) button.ariaLabel = "Copy";
  for (const input of document.querySelectorAll(".parameters input, .opblock-section-request-body input"))
    input.ariaLabel = (input.closest("tr")?.dataset.paramName || input.closest("tr")?.querySelector(".parameter__name")?.textContent || "value").trim();
  for (const text of document.querySelectorAll(".microlight")) text.tabIndex = 0;
}
new MutationObserver(name).observe(document.querySelector("#docs"), { childList: true, subtree: true });

async function show() {
  const spec = await (await fetch("openapi.json")).json();
  spec.servers = [{ url: new URL(".", location.href).href.replace(/\/$/, "") }];
  SwaggerUIBundle({
    spec,
    domNode: document.querySelector("#docs"),
    plugins: [{ components: { ServersContainer: () => null } }],  // there is only this server
    tryItOutEnabled: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: -1,
    validatorUrl: null,
  });
}

show();
