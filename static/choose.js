// Counts what is chosen on a page of images and chooses all or none of them; with Shift held down, all from the last one chosen on.
// Reads data-choose, data-chosen, data-all. The form works without this script.

const form = document.querySelector("[data-choose]");
const boxes = form ? [...form.querySelectorAll("input[name=image_ids]")] : [];
const state = form?.querySelector("[data-chosen]");
const all = form?.querySelector("[data-all]");
const submits = form ? [...form.querySelectorAll("button[type=submit]")] : [];
let last = null;

function show() {
  const count = boxes.filter((box) => box.checked).length;
  state.textContent = count === 1 ? "1 image chosen" : `${count} images chosen`;
  all.textContent = count === boxes.length ? "Choose none" : "Choose all on this page";
  for (const submit of submits) submit.disabled = count === 0;
}

function chooseUpTo(box) {
  const [from, to] = [boxes.indexOf(last), boxes.indexOf(box)].sort((a, b) => a - b);
  for (const between of boxes.slice(from, to + 1)) between.checked = box.checked;
}

if (form) {
  for (const box of boxes) {
    box.addEventListener("click", (event) => {
      if (event.shiftKey && last) chooseUpTo(box);
      last = box;
      show();
    });
  }
  form.addEventListener("change", show); // a script takes the marks off, too
  all.addEventListener("click", () => {
    const chosen = !boxes.every((box) => box.checked);
    for (const box of boxes) box.checked = chosen;
    show();
  });
  form.addEventListener("keydown", (event) => {
    // It would press a button.
    if (event.key === "Enter" && event.target.type === "checkbox") event.preventDefault();
  });
  window.addEventListener("pageshow", show); // going back shows the page as it was left
  all.hidden = false;
  show();
}
