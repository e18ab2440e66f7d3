// Moves through grids of images (data-grid) by arrows, Home and End, and marks them as examples (data-marking): "+" more like this,
// "-" less like this, Esc takes all marks off. Reads data-marked, where what is marked is said. The form works without this script.

const SAME_ROW = 0.5; // of a tile's height

const tiles = [...document.querySelectorAll("[data-grid] > li")];

function linkOf(tile) {
  return tile.querySelector("a");
}

/** Return the tile above (-1) or below (1) that lies nearest to the middle of `from`, or null. */
function beyond(from, direction) {
  const own = from.getBoundingClientRect();
  let best = null;
  for (const tile of tiles) {
    const box = tile.getBoundingClientRect();
    const down = (box.top - own.top) * direction;
    if (down < own.height * SAME_ROW) continue;
    const across = Math.abs(box.left + box.width / 2 - own.left - own.width / 2);
    const nearer = best && (down < best.down - own.height * SAME_ROW || (down < best.down + own.height * SAME_ROW && across < best.across));
    if (!best || nearer) best = { tile, down, across };
  }
  return best?.tile ?? null;
}

function next(tile, key) {
  const place = tiles.indexOf(tile);
  if (key === "ArrowRight") return tiles[place + 1];
  if (key === "ArrowLeft") return tiles[place - 1];
  if (key === "ArrowDown") return beyond(tile, 1);
  if (key === "ArrowUp") return beyond(tile, -1);
  if (key === "Home") return tiles[0];
  if (key === "End") return tiles.at(-1);
  return null;
}

function mark(tile, name) {
  const box = tile.querySelector(`input[name="${name}"]`);
  if (box) box.click();
  return Boolean(box);
}

function counted(form) {
  const said = form.querySelector("[data-marked]");
  const count = (name) => form.querySelectorAll(`.marks input[name="${name}"]:checked`).length;
  const [more, less] = [count("like"), count("unlike")];
  said.textContent = [more && `${more} more like it`, less && `${less} less like it`].filter(Boolean).join(", ");
}

function enhance(form) {
  form.addEventListener("change", ({ target }) => {
    if (!target.matches(".marks input")) return;
    for (const other of target.closest(".marks").querySelectorAll("input")) {
      if (other !== target && target.checked) other.checked = false; // both at once means nothing
    }
    counted(form);
  });
  form.addEventListener("reset", () => setTimeout(() => counted(form)));
  window.addEventListener("pageshow", () => counted(form)); // going back shows the page as it was left
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey && event.key !== "+") return;
  if (document.querySelector("dialog[open]")) return;
  const tile = event.target.closest("[data-grid] > li");
  if (!tile) return;
  const to = next(tile, event.key);
  const names = { "+": "like", "-": "unlike" };
  if (to) linkOf(to).focus();
  else if (event.key === "Escape") tile.closest("form")?.reset();
  else if (!(event.key in names) || !mark(tile, names[event.key])) return;
  event.preventDefault();
});

const form = document.querySelector("[data-marking]");
if (form) enhance(form);
