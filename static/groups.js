// Cuts the groups anew while the slider is moved, and shows them in place, so that the slider keeps the focus. Reads data-groups,
// data-value, data-submit, data-sim, data-live. The form works without this script.

const PAUSE_MS = 250; // between the last key or choice and the question

function enhance(form) {
  const slider = form.querySelector('input[type="range"]');
  const value = form.querySelector("[data-value]");
  let timer = 0;
  let asked = null;

  function address() {
    const wanted = new URLSearchParams(new FormData(form));
    // The slider has round numbers alone; what the page shows may lie between two.
    if (slider.dataset.moved === undefined) wanted.set("sim", slider.dataset.sim);
    return `${form.action}?${wanted}`;
  }

  async function show() {
    if (!form.reportValidity()) return;
    const url = address();
    asked?.abort();
    asked = new AbortController();
    form.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(url, { signal: asked.signal });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const parts = [...document.querySelectorAll("[data-live]")];
      const fresh = parts.map((part) => page.getElementById(part.id));
      if (!answer.ok || fresh.includes(null)) throw new TypeError("no page of groups");
      parts.forEach((part, place) => part.replaceWith(fresh[place]));
      history.pushState(null, "", url);
    } catch (error) {
      if (error.name === "AbortError") return; // another question is under way
      location.assign(url); // let the browser show what is wrong
    }
    form.removeAttribute("aria-busy");
  }

  form.querySelector("[data-submit]").hidden = true;
  slider.addEventListener("input", () => {
    slider.dataset.moved = "";
    value.textContent = slider.value;
  });
  form.addEventListener("change", () => {
    clearTimeout(timer);
    timer = setTimeout(show, PAUSE_MS);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    show();
  });
  window.addEventListener("popstate", () => location.reload());
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) form.reset(); // what the address says, not what was once chosen here
  });
}

const form = document.querySelector("[data-groups]");
if (form) enhance(form);
