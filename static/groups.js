// Shows groups anew as soon as the slider is let go of. Reads data-groups, data-value, data-submit. The form works without this script.

function enhance(form) {
  const slider = form.querySelector('input[type="range"]');
  const value = form.querySelector("[data-value]");
  form.querySelector("[data-submit]").hidden = true;
  slider.addEventListener("input", () => {
    value.textContent = slider.value;
  });
  form.addEventListener("change", () => {
    if (form.reportValidity()) form.requestSubmit();
  });
  window.addEventListener("pageshow", () => form.reset()); // going back shows what the page shows, not what was chosen on it
}

const form = document.querySelector("[data-groups]");
if (form) enhance(form);
