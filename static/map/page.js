// The page of the map: what is drawn when, where one looks, and what is lit, selected or pointed at.

import { readAddress, writeAddress } from "./address.js";
import { ask } from "./asking.js";
import { Camera } from "./camera.js";
import { lookOf } from "./colours.js";
import { connect } from "./controls.js";
import { Details, loadAtlases } from "./details.js";
import { Drawing as Flat } from "./flat.js";
import { Drawing as Gl } from "./gl.js";
import { Card } from "./hover.js";
import { Panel } from "./panel.js";
import { POINTED, SELECTED, Scene } from "./scene.js";
import { Spots } from "./spots.js";

const MOST_RATIO = 2; // pixels of the screen for a CSS pixel
const REST_MS = 120;
const thumbnail = (id) => `/images/${id}/thumbnail`;

export class MapPage {
  constructor(root, about, buffer) {
    this.root = root;
    this.about = about;
    this.part = (name) => root.querySelector(`[data-${name}]`);
    this.scene = new Scene(about, buffer);
    this.camera = new Camera(matchMedia("(prefers-reduced-motion: reduce)").matches);
    this.selected = [];
    this.lit = null; // which points, and why as the address says it
    this.pointed = -1;
    this.atlases = 0;
    this.frames = 0;
    this.start();
  }

  start() {
    const given = readAddress();
    this.scene.change(this.scene.layouts.has(given.layout) ? given.layout : this.root.dataset.layout);
    this.#makeDrawing(given.drawing);
    this.card = new Card(this.part("card"), this.scene, { thumbnail, about: (id) => `/api/v1/images/${id}` });
    this.spots = new Spots(this.part("spots"), this.about, { choose: (spot) => this.lightGroup(spot.image_id, spot.sim) });
    this.panel = new Panel(this.part("panel"), { thumbnail, clear: () => this.clear(), zoom: () => this.zoomTo(this.selected) });
    connect(this);
    new ResizeObserver(() => this.resize()).observe(this.part("stage"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
    this.resize();
    this.#show(given);
    this.root.dataset.ready = "ready";
  }

  #makeDrawing(wanted) {
    const canvas = this.part("canvas");
    this.drawing = (wanted !== "canvas" && Gl.over(canvas, this.scene, { evenSlow: wanted === "webgl" })) || new Flat(canvas, this.scene);
    this.root.dataset.drawing = this.drawing.kind;
    canvas.addEventListener("webglcontextlost", () => {
      // The graphics card was taken away: go on without it, on a canvas that has no context yet.
      canvas.replaceWith(canvas.cloneNode());
      this.#makeDrawing("canvas");
      this.resize();
    });
    this.drawing.setColours(lookOf(this.scene, this.root));
    this.atlases = 0;
    const onCame = () => this.wake();
    this.details = new Details(this.scene, this.drawing, { thumbnail, cell: this.about.atlases?.cell ?? null, onCame });
    this.scene.detailed = this.details.slotOf;
    if (!this.about.atlases) return;
    const came = (count) => {
      this.atlases = count;
      this.wake();
    };
    loadAtlases(this.about.atlases, this.drawing, came).catch((error) => this.say(error.message, "problem"));
  }

  recolour() {
    this.drawing.setColours(lookOf(this.scene, this.root));
    this.wake();
  }

  /** The canvas reaches over the edge of the window, because WebGL leaves out points whose middle lies outside of it. */
  resize() {
    const stage = this.part("stage").getBoundingClientRect();
    this.ratio = Math.min(window.devicePixelRatio || 1, MOST_RATIO);
    this.spots.avoid([...this.root.querySelectorAll("[data-top] .map-bar, .map-tools")], stage);
    const panel = this.part("panel");
    const sheet = panel.offsetWidth === Math.round(stage.width) ? panel.offsetHeight : 0; // on a phone
    this.camera.resize(stage.width, stage.height, this.part("top").offsetHeight + 16, sheet);
    const canvas = this.part("canvas");
    this.over = this.drawing.kind === "webgl" ? 100 : 0;
    [canvas.width, canvas.height] = [stage.width, stage.height].map((side) => Math.round((side + 2 * this.over) * this.ratio));
    canvas.style.inset = `${-this.over}px`;
    canvas.style.width = `${stage.width + 2 * this.over}px`;
    canvas.style.height = `${stage.height + 2 * this.over}px`;
    this.wake();
  }

  // Drawing: a frame whenever something has changed.

  wake() {
    this.asked ??= requestAnimationFrame((now) => this.#frame(now));
  }

  #frame(now) {
    this.asked = undefined;
    const moving = this.camera.step(now);
    const progress = this.scene.progress(now);
    const [before, size] = [this.scene.before, this.scene.layout].map((layout) => this.scene.size(this.camera, layout));
    this.drawing.draw(this.camera, { size: before + (size - before) * progress, progress, ratio: this.ratio });
    this.spots.place(this.scene, this.camera, progress < 1);
    if (progress < 1) this.point(-1);
    this.card.show(this.pointed, this.camera);
    this.frames++;
    this.busy = moving || progress < 1;
    if (this.busy) this.wake();
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.#rest(), REST_MS);
  }

  #rest() {
    if (this.busy) return;
    this.details.look(this.camera, this.ratio);
    const { x, y, zoom, extent } = this.camera;
    const wholeMap = zoom === 1 && Math.abs(x - (extent[0] + extent[2]) / 2) + Math.abs(y - (extent[1] + extent[3]) / 2) < 1e-6;
    writeAddress(this.scene.layout.name, this.camera, this.lit?.why, { wholeMap });
  }

  // Where one looks.

  change(name) {
    if (name === this.scene.layout.name) return;
    this.scene.change(name, this.camera.still ? null : performance.now());
    this.drawing.layoutChanged();
    this.#limits();
    for (const button of this.root.querySelectorAll("[data-layout-of]")) {
      button.setAttribute("aria-pressed", button.dataset.layoutOf === name);
    }
    this.say(`Layout: ${this.scene.layout.title}.`);
    if (this.lit) this.zoomTo(this.lit.points);
    else this.fit();
  }

  #limits() {
    this.camera.take(this.scene.layout);
    this.camera.mostZoom = Math.max(4, 260 / (this.scene.layout.spacing * this.camera.base));
  }

  fit() {
    this.camera.fit({ at: performance.now() });
    this.wake();
  }

  zoomTo(points) {
    if (!points.length) return;
    this.camera.showBox(this.scene.boxOf(points), { at: performance.now(), mostZoom: points.length > 1 ? 40 : this.camera.mostZoom });
    this.wake();
  }

  async #show(given) {
    this.#limits();
    this.camera.fit();
    if (given.view) this.camera.moveTo(given.view.x, given.view.y, given.view.zoom);
    this.drawing.layoutChanged();
    this.wake();
    if (given.q) await this.find(given.q, { stay: given.view !== null });
    else if (given.group !== null) await this.lightGroup(given.group, given.sim, { stay: given.view !== null });
    else if (given.image !== null) this.#centreOn(given.image, given.view !== null);
  }

  #centreOn(id, stay) {
    const point = this.scene.pointOf(id);
    if (point < 0) return this.say(`Image ${id} is not on this map.`, "problem");
    this.lit = { points: [point], why: { image: id } };
    const [x, y] = this.scene.place(point);
    if (!stay) this.camera.moveTo(x, y, Math.max(4, 70 / (this.scene.layout.spacing * this.camera.base)));
    this.point(point);
  }

  // What is lit, selected, pointed at.

  async find(q, { stay = false } = {}) {
    await this.#light(`/api/v1/map/found?q=${encodeURIComponent(q)}`, { q }, stay, (found) => {
      const many = found.count === 1 ? "1 picture" : `${found.count.toLocaleString("en")} pictures`;
      return found.count ? `${many} with “${q}” in ${found.by}.` : `No picture has “${q}” in label, tag or name.`;
    });
  }

  async lightGroup(id, sim, { stay = false } = {}) {
    const at = sim === null || sim === undefined ? "" : `&sim=${encodeURIComponent(sim)}`;
    await this.#light(`/api/v1/map/group?image_id=${id}${at}`, { group: id, sim }, stay, (found) => {
      return `${found.name}: ${found.count.toLocaleString("en")} pictures.`;
    });
  }

  async #light(url, why, stay, tell) {
    this.sought = url;
    try {
      const found = await ask(url);
      if (this.sought !== url) return; // something else was asked for meanwhile
      const points = this.scene.pointsOf(found.image_ids);
      this.say(tell(found));
      if (!points.length) return;
      this.lit = { points, why };
      this.scene.light(points);
      this.drawing.statesChanged();
      this.#showLit();
      if (!stay) this.zoomTo(points);
      this.wake();
    } catch (error) {
      if (this.sought === url) this.say(error.message, "problem");
    }
  }

  #showLit() {
    this.part("lit").hidden = this.lit === null;
    if (!this.lit?.why.q) this.part("query").value = "";
    else this.part("query").value = this.lit.why.q;
  }

  dimNone() {
    this.lit = this.sought = null;
    this.scene.light(null);
    this.drawing.statesChanged();
    this.#showLit();
    this.say("");
    this.wake();
  }

  select(points) {
    this.selected = points;
    this.scene.mark(SELECTED, points);
    this.drawing.statesChanged();
    this.panel.show(points.map((point) => this.scene.ids[point]));
    this.resize();
  }

  clear() {
    this.select([]);
    this.part("stage").focus();
  }

  point(point) {
    if (point === this.pointed) return;
    this.pointed = point;
    this.scene.mark(POINTED, point < 0 ? [] : [point]);
    this.drawing.statesChanged();
    this.part("stage").toggleAttribute("data-pointing", point >= 0);
    this.wake();
  }

  open(point) {
    if (point >= 0) location.assign(`/images/${this.scene.ids[point]}`);
  }

  say(text, kind = "done") {
    const state = this.part("state");
    state.textContent = text;
    state.dataset.kind = kind;
  }

  lasso(on) {
    this.drawn = on;
    this.part("lasso").setAttribute("aria-pressed", on);
    this.part("stage").toggleAttribute("data-lasso", on);
  }
}
