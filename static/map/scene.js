// The points of the map: where they are in each layout, what each is like, and which are selected, lit or under the pointer.

import { eased } from "./camera.js";

export const DIM = 1;
export const SELECTED = 2;
export const POINTED = 4;
export const NONE = 65535;

const CHANGE_MS = 1100;
const LEAST_SIZE = 2.6;
const MOST_SIZE = 190;
const LEAST_PICTURE = 8;
const OVERLAP = { pictures: 2.7, points: 1.5 }; // of the space between neighbours, that they take when the whole map is seen
const CLEAR = 40; // CSS pixels from which pictures need not lie over each other to be recognised
const GROWTH = 0.6; // they grow more slowly than that space, so that zooming in draws them apart
const READERS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };

/** Read the columns of the file of points. */
function columnsOf(about, buffer) {
  return Object.fromEntries(
    about.points.columns.map(({ name, type, offset, count }) => [name, new READERS[type](buffer, offset, count)]),
  );
}

/** One layout: places, how far they reach, how far apart they are, and which lie in each square of a coarse grid. */
class Layout {
  constructor({ name, title, cell }, places) {
    Object.assign(this, { name, title, cell, places });
    this.count = places.length / 2;
    let [left, top, right, bottom] = [65535, 65535, 0, 0];
    for (let i = 0; i < places.length; i += 2) {
      left = Math.min(left, places[i]);
      right = Math.max(right, places[i]);
      top = Math.min(top, places[i + 1]);
      bottom = Math.max(bottom, places[i + 1]);
    }
    this.extent = [left, top, right, bottom].map((edge) => edge / 65535);
    this.#sort();
    this.spacing = cell ?? Math.sqrt(this.#taken / Math.max(this.count, 1));
    const reach = this.spacing / 2;
    this.extent = this.extent.map((edge, side) => edge + (side < 2 ? -reach : reach));
  }

  #sort() {
    const side = Math.min(512, Math.max(1, Math.ceil(Math.sqrt(this.count / 3))));
    this.side = side;
    this.starts = new Uint32Array(side * side + 1);
    const square = new Uint32Array(this.count);
    for (let i = 0; i < this.count; i++) {
      square[i] = this.#square(this.places[2 * i + 1] / 65535) * side + this.#square(this.places[2 * i] / 65535);
      this.starts[square[i] + 1]++;
    }
    this.#taken = this.starts.reduce((sum, count) => sum + (count > 0), 0) / side ** 2;
    for (let i = 0; i < side * side; i++) this.starts[i + 1] += this.starts[i];
    const next = this.starts.slice();
    this.order = new Uint32Array(this.count);
    for (let i = 0; i < this.count; i++) this.order[next[square[i]]++] = i;
  }

  #taken = 1;

  #square(place) {
    return Math.min(this.side - 1, Math.max(0, Math.floor(place * this.side)));
  }

  /** Call `see(point)` for every point in the squares that a box touches. */
  eachNear([left, top, right, bottom], see) {
    const [first, last] = [this.#square(left), this.#square(right)];
    for (let row = this.#square(top); row <= this.#square(bottom); row++) {
      const end = this.starts[row * this.side + last + 1];
      for (let k = this.starts[row * this.side + first]; k < end; k++) see(this.order[k]);
    }
  }
}

export class Scene {
  constructor(about, buffer) {
    const columns = columnsOf(about, buffer);
    this.count = about.images;
    this.labels = about.labels;
    this.ids = columns.ids;
    this.labelOf = columns.labels;
    this.cells = columns.cells;
    this.shapes = columns.shapes;
    this.ratios = Float32Array.from(columns.shapes, (code) => 2 ** ((code - 128) / 64));
    this.hues = columns.colours;
    this.states = new Uint8Array(this.count);
    this.layouts = new Map(about.layouts.map((one) => [one.name, new Layout(one, columns[`layout-${one.name}`])]));
    this.layout = this.before = [...this.layouts.values()][0];
    this.changing = null;
    this.dimmed = false;
    this.pictures = about.atlases !== null; // else points, but those that `detailed` has
    this.detailed = new Map();
  }

  /** Change to a layout; `at` is the time in milliseconds, null for at once. */
  change(name, at = null) {
    this.before = this.layout;
    this.layout = this.layouts.get(name);
    this.changing = at;
  }

  /** How far a change of layout has come, 0…1. */
  progress(now) {
    if (this.changing === null) return 1;
    const share = Math.min(1, (now - this.changing) / CHANGE_MS);
    if (share === 1) this.changing = null;
    return eased(share);
  }

  /** The longer side of a picture on the screen, in CSS pixels. */
  size(camera, layout = this.layout) {
    const whole = layout.spacing * camera.base * Math.sqrt(camera.shape[0] * camera.shape[1]);
    if (layout.cell) return Math.min(Math.max(0.96 * whole * camera.zoom, LEAST_SIZE), MOST_SIZE);
    const [least, overlap] = this.pictures ? [LEAST_PICTURE, OVERLAP.pictures] : [LEAST_SIZE, OVERLAP.points];
    const wanted = Math.min(overlap * whole, Math.max(CLEAR, 1.2 * whole));
    return Math.min(Math.max(wanted, least) * camera.zoom ** GROWTH, MOST_SIZE);
  }

  place(point) {
    return [this.layout.places[2 * point] / 65535, this.layout.places[2 * point + 1] / 65535];
  }

  /** The point of an image id, or -1. */
  pointOf(id) {
    let [low, high] = [0, this.count];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ids[middle] < id) low = middle + 1;
      else high = middle;
    }
    return low < this.count && this.ids[low] === id ? low : -1;
  }

  pointsOf(ids) {
    return ids.map((id) => this.pointOf(id)).filter((point) => point >= 0);
  }

  label(point) {
    return this.labels[this.labelOf[point]] ?? "";
  }

  /** The points within a box of the map. */
  inside(box) {
    const [left, top, right, bottom] = box;
    const found = [];
    this.layout.eachNear(box, (point) => {
      const [x, y] = this.place(point);
      if (x >= left && x <= right && y >= top && y <= bottom) found.push(point);
    });
    return found;
  }

  /** The point whose picture is seen at a place of the screen, or -1; with `reach` the nearest that is no further away. */
  at(camera, screenX, screenY, reach = 5) {
    const half = this.size(camera) / 2;
    const far = Math.max(half, reach);
    const box = [...camera.toMap(screenX - far, screenY - far), ...camera.toMap(screenX + far, screenY + far)];
    let [best, rank] = [-1, -Infinity];
    this.layout.eachNear(box, (point) => {
      const [x, y] = camera.toScreen(...this.place(point));
      const [dx, dy] = [Math.abs(x - screenX), Math.abs(y - screenY)];
      const on = (this.pictures || this.detailed.has(point)) && dx <= half * Math.min(1, this.ratios[point]) && dy <= half * Math.min(1, 1 / this.ratios[point]);
      const away = Math.hypot(dx, dy);
      if (!on && away > reach) return;
      const dim = this.states[point] & DIM ? 1 : 0;
      // What is drawn last is on top: light before dim, then the later; beside all pictures the nearest counts.
      const here = on ? 2e9 - dim * 1e9 + point : -away - dim * 1e6;
      if (here > rank) [best, rank] = [point, here];
    });
    return best;
  }

  /** The box around points, without the few that lie far off. */
  boxOf(points) {
    const axis = (side) => {
      const sorted = Float64Array.from(points, (point) => this.place(point)[side]).sort();
      const cut = sorted.length > 20 ? Math.floor(sorted.length * 0.05) : 0;
      return [sorted[cut], sorted[sorted.length - 1 - cut]];
    };
    const [[left, right], [top, bottom]] = [axis(0), axis(1)];
    const reach = this.layout.spacing;
    return [left - reach, top - reach, right + reach, bottom + reach];
  }

  /** Mark points with a bit of `states`, and only them. */
  mark(bit, points) {
    for (let i = 0; i < this.count; i++) this.states[i] &= ~bit;
    for (const point of points) this.states[point] |= bit;
  }

  /** Light these points by dimming all others; null lights all. */
  light(points) {
    this.dimmed = points !== null;
    if (points === null) return this.mark(DIM, []);
    for (let i = 0; i < this.count; i++) this.states[i] |= DIM;
    for (const point of points) this.states[point] &= ~DIM;
  }
}
