// Shows the page behind a "Why?" in a dialog over the results. Reads data-why of links, data-why-shown of the page it fetches.
// Without this script, or when fetching fails, the link leads to that page.

const dialog = document.createElement("dialog");
dialog.className = "why-dialog";
dialog.setAttribute("aria-label", "Why this result?");
let asked = 0;

async function explanation(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(String(response.status));
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const shown = page.querySelector("[data-why-shown]");
  if (!shown) throw new Error("no explanation");
  return document.importNode(shown, true);
}

async function open(link) {
  const mine = ++asked;
  link.setAttribute("aria-busy", "true");
  try {
    const shown = await explanation(link.href);
    if (mine !== asked) return;
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    close.addEventListener("click", () => dialog.close());
    shown.append(close);
    dialog.replaceChildren(shown);
    if (!dialog.isConnected) document.body.append(dialog);
    dialog.showModal();
    close.focus();
  } catch {
    if (mine === asked) location.assign(link.href);
  } finally {
    link.removeAttribute("aria-busy");
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-why]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  open(link);
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // beside what it shows
});
