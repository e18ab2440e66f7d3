// Gives labels, and takes them away, without leaving the page: of what is marked or chosen in a form (data-labelling) by its buttons
// (data-label). Says in data-state what came of it. The forms work without this script.

import { ask } from "./map/asking.js";

/** The ids of the images that `name` names, and of those that were marked as `mark`; what is searched with is no mark. */
function idsOf(form, name, mark) {
  const named = form.querySelectorAll(`input[name=${name}]:is(:checked, [type=hidden]), input[name=${mark}][type=checkbox]:checked`);
  return [...named].map((input) => Number(input.value));
}

function wanted(form) {
  const said = (name) => form.elements[name]?.value.trim() ?? "";
  const first = { label: said("as"), image_ids: idsOf(form, "image_ids", "like") };
  const others = { label: said("other_as"), image_ids: idsOf(form, "other_ids", "unlike") };
  return [first, others].filter((one) => one.label && one.image_ids.length);
}

async function give(form) {
  const all = wanted(form);
  if (!all.length) throw new Error("Say what they are pictures of.");
  const said = [];
  for (const one of all) {
    const { label, image_ids: ids } = await ask("/api/v1/labels", one);
    said.push(`${ids.length.toLocaleString("en")} labelled “${label}”`);
    show(form, ids, label);
  }
  return `${said.join(", ")}.`;
}

async function take(form) {
  const ids = idsOf(form, "image_ids", "like");
  const { taken } = await ask("/api/v1/labels", { image_ids: ids }, "DELETE");
  show(form, ids, "");
  return taken === 1 ? "1 label taken away." : `${taken.toLocaleString("en")} labels taken away.`;
}

/** Where chosen images say their label, let them say the new one, and be chosen no more. */
function show(form, ids, label) {
  for (const id of ids) {
    const tile = form.querySelector(`input[name=image_ids][value="${id}"][type=checkbox]`)?.closest("li");
    if (!tile) continue;
    tile.querySelector("[data-label-of]").textContent = label;
    const box = tile.querySelector("input");
    box.checked = false;
    box.dispatchEvent(new Event("change", { bubbles: true }));
  }
}

/** Say that what a form (data-learning, with the words for it) asks for is under way; the page that comes says what came of it. */
function wait(form) {
  const [state, button] = [form.querySelector("[data-state]"), form.querySelector("button")];
  const said = state.textContent;
  state.textContent = form.dataset.learning;
  button.disabled = true;
  window.addEventListener("pageshow", () => { // going back, from a page that says why nothing was learnt
    state.textContent = said;
    button.disabled = false;
  }, { once: true });
}

document.addEventListener("submit", async (event) => {
  if (event.target.dataset.learning) wait(event.target);
  const button = event.submitter;
  if (!button?.matches("[data-label]")) return;
  event.preventDefault();
  const form = event.target;
  const state = form.querySelector("[data-state]");
  const say = (text, kind) => Object.assign(state, { textContent: text }).dataset.kind = kind;
  try {
    say(await (button.dataset.label === "take" ? take(form) : give(form)), "done");
  } catch (error) {
    say(error.message, "problem");
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.target.matches('input[name="as"], input[name="other_as"]')) return;
  const button = event.target.form.querySelector("[data-label]");
  if (!button) return;
  event.preventDefault(); // in a form that searches, it would search
  if (!button.disabled) event.target.form.requestSubmit(button);
});
