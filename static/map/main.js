// Starts the map of the collection. Reads data-map, and tells tests and scripts what is seen by `window.lookalikeMap`.

import { ask } from "./asking.js";
import { MapPage } from "./page.js";

/** What tests and scripts may look at. */
function told(page) {
  const { scene, camera } = page;
  return {
    page,
    get drawing() {
      return page.drawing.kind;
    },
    get view() {
      return { layout: scene.layout.name, x: camera.x, y: camera.y, zoom: camera.zoom, size: scene.size(camera) };
    },
    get still() {
      return !page.busy && page.asked === undefined;
    },
    get loaded() {
      return { atlases: page.atlases, details: page.details.shown };
    },
    get selected() {
      return page.selected.map((point) => scene.ids[point]);
    },
    get lit() {
      return page.lit ? page.lit.points.map((point) => scene.ids[point]) : null;
    },
    get pointed() {
      return page.pointed < 0 ? null : scene.ids[page.pointed];
    },
    get frames() {
      return page.frames;
    },
    /** Where an image is in the window. */
    where(id) {
      const { left, top } = page.part("stage").getBoundingClientRect();
      const [x, y] = camera.toScreen(...scene.place(scene.pointOf(id)));
      return [left + x, top + y];
    },
  };
}

async function begin(root) {
  try {
    const about = await ask(root.dataset.map);
    const response = await fetch(about.points.url);
    if (!response.ok) throw new Error(`The points of the map cannot be had (status ${response.status}).`);
    window.lookalikeMap = told(new MapPage(root, about, await response.arrayBuffer()));
  } catch (error) {
    root.dataset.ready = "failed";
    const state = root.querySelector("[data-state]");
    state.textContent = error.message;
    state.dataset.kind = "problem";
  }
}

for (const root of document.querySelectorAll("[data-map]")) begin(root);
