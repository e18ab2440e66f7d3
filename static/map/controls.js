// What the hands on the map, its buttons and its fields do to it. Reads data-do, data-layout-of, data-spot, data-find.

import { listen } from "./input.js";
import { enclosed, showLine } from "./lasso.js";
import { DIM } from "./scene.js";

/** Connect the surface of the map, its buttons, its field to find by and its keys. */
export function connect(page) {
  const { camera, scene } = page;
  const under = (x, y, reach) => (x === null || scene.changing !== null ? -1 : scene.at(camera, x, y, reach));
  listen(page.part("stage"), camera, {
    drawing: () => page.drawn,
    moved: () => page.wake(),
    fit: () => page.fit(),
    pointed: (x, y) => page.point(under(x, y)),
    aimed: () => page.point(under(...camera.middle, Infinity)),
    entered: () => page.open(page.pointed),
    clicked: (x, y, event) => {
      const point = under(x, y, event.pointerType === "touch" ? 18 : 5);
      // A finger cannot hover: its first tap shows what it is, the second opens it.
      if (event.pointerType === "touch" && point !== page.pointed) return page.point(point);
      if (event.ctrlKey || event.metaKey) return point >= 0 && window.open(`/images/${scene.ids[point]}`);
      page.open(point);
    },
    drawn: (line) => {
      page.point(-1);
      showLine(page.part("line"), line);
    },
    enclosed: (line) => {
      showLine(page.part("line"), null);
      page.lasso(false);
      if (!line) return;
      const points = enclosed(scene, camera, line, (point) => !(scene.states[point] & DIM));
      if (points.length) page.select(points);
      else page.say("There is no picture within the line.", "problem");
    },
  });
  const acts = {
    in: () => camera.zoomAt(1.6),
    out: () => camera.zoomAt(1 / 1.6),
    fit: () => page.fit(),
    lasso: () => page.lasso(!page.drawn),
    "zoom-lit": () => page.zoomTo(page.lit?.points ?? []),
    "select-lit": () => page.lit && page.select(page.lit.points),
    "dim-none": () => page.dimNone(),
  };
  for (const button of page.root.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => {
      acts[button.dataset.do]();
      page.wake();
    });
  }
  for (const button of page.root.querySelectorAll("[data-layout-of]")) {
    button.addEventListener("click", () => page.change(button.dataset.layoutOf));
  }
  for (const button of page.root.querySelectorAll("[data-spot]")) {
    button.addEventListener("click", () => {
      page.root.querySelector("details").open = false; // it lies over what is shown now
      page.part("stage").focus();
      page.lightGroup(Number(button.dataset.spot), button.dataset.sim || null);
    });
  }
  page.part("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const q = page.part("query").value.trim();
    if (q) page.find(q);
    else page.dimNone();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const places = page.root.querySelector("details");
    if (places?.open) places.open = false;
    else if (page.drawn) page.lasso(false);
    else if (page.selected.length) page.clear();
    else if (page.lit) page.dimNone();
  });
}
