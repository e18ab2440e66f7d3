// Where one looks at the map: the point in the middle, and how far one has zoomed in. Places on the map are 0…1, y downwards; on the
// screen CSS pixels from the corner of the map.

const MOVE_MS = 700;
const MARGIN = 0.92; // share of the window that the whole map takes
const MOST_STRETCH = 1.7;

export function eased(share) {
  return share < 0.5 ? 4 * share ** 3 : 1 - (2 - 2 * share) ** 3 / 2;
}

export class Camera {
  constructor(still) {
    this.still = still; // whether movements are left out
    [this.x, this.y, this.zoom] = [0.5, 0.5, 1];
    [this.width, this.height] = [1, 1];
    [this.top, this.bottom] = [0, 0]; // what the controls cover
    this.extent = [0, 0, 1, 1];
    this.free = false; // whether places may be drawn apart more in one direction than in the other
    this.stretch = [1, 1]; // as it is now; `shape` is what it is to be
    this.mostZoom = 100;
    this.way = null;
  }

  /** CSS pixels that one unit of the map takes. */
  get scale() {
    return this.base * this.zoom;
  }

  /** The same across and down. */
  get scales() {
    return this.stretch.map((by) => this.scale * by);
  }

  /** The same when the whole map is seen. */
  get base() {
    const [across, down] = this.shape;
    return MARGIN * Math.min(this.width / (this.#wide * across), this.open / (this.#high * down));
  }

  /** How much the map is stretched across and down, so that it fills a wide window and a high one. */
  get shape() {
    if (!this.free) return [1, 1];
    const by = this.width / this.#wide / (Math.max(this.height - this.top, 1) / this.#high);
    return [Math.min(Math.max(by, 1), MOST_STRETCH), Math.min(Math.max(1 / by, 1), MOST_STRETCH)];
  }

  get #wide() {
    return Math.max(this.extent[2] - this.extent[0], 1e-6);
  }

  get #high() {
    return Math.max(this.extent[3] - this.extent[1], 1e-6);
  }

  /** Look at another layout with what was seen as large as it was; the next movement brings its own shape. */
  take({ extent, cell }) {
    const before = this.scale;
    [this.extent, this.free] = [extent, !cell];
    this.zoom *= before / this.scale;
  }

  /** The height that controls leave free. */
  get open() {
    return Math.max(this.height - this.top - this.bottom, 1);
  }

  /** The middle of the free part, where `x` and `y` are seen. */
  get middle() {
    return [this.width / 2, this.top + this.open / 2];
  }

  toScreen(x, y) {
    const [middleX, middleY] = this.middle;
    const [across, down] = this.scales;
    return [(x - this.x) * across + middleX, (y - this.y) * down + middleY];
  }

  toMap(x, y) {
    const [middleX, middleY] = this.middle;
    const [across, down] = this.scales;
    return [(x - middleX) / across + this.x, (y - middleY) / down + this.y];
  }

  resize(width, height, top, bottom) {
    [this.width, this.height] = [Math.max(width, 1), Math.max(height, 1)];
    [this.top, this.bottom] = [Math.min(top, height / 3), Math.min(bottom, height * 0.6)];
    if (!this.way) this.stretch = this.shape;
  }

  panBy(x, y) {
    this.#stop();
    const [across, down] = this.scales;
    this.#put(this.x - x / across, this.y - y / down, this.zoom);
  }

  /** Zoom so that what lies at a point of the screen stays there. */
  zoomAt(factor, x = this.middle[0], y = this.middle[1]) {
    this.#stop();
    const [mapX, mapY] = this.toMap(x, y);
    this.#put(this.x, this.y, this.zoom * factor);
    const [nowX, nowY] = this.toMap(x, y);
    this.#put(this.x + mapX - nowX, this.y + mapY - nowY, this.zoom);
  }

  #stop() {
    this.way = null;
    this.stretch = this.shape;
  }

  #put(x, y, zoom) {
    const [left, top, right, bottom] = this.extent;
    this.zoom = Math.min(Math.max(zoom, 0.5), this.mostZoom);
    this.x = Math.min(Math.max(x, left), right);
    this.y = Math.min(Math.max(y, top), bottom);
  }

  /** Move to a place; `now` is the time of the frame in milliseconds. */
  moveTo(x, y, zoom, { at = null } = {}) {
    const before = [this.x, this.y, this.zoom, ...this.stretch];
    this.#stop();
    this.#put(x, y, zoom);
    if (this.still || at === null) return;
    this.way = { from: before, to: [this.x, this.y, this.zoom, ...this.stretch], start: at };
    [this.x, this.y, this.zoom, ...this.stretch] = before;
  }

  /** Move to where a box of the map fills the window, or as far in as makes sense. */
  showBox([left, top, right, bottom], { at = null, mostZoom = this.mostZoom } = {}) {
    const across = this.width / Math.max((right - left) * this.shape[0], 1e-6);
    const down = this.open / Math.max((bottom - top) * this.shape[1], 1e-6);
    const zoom = Math.min((0.8 * Math.min(across, down)) / this.base, mostZoom);
    this.moveTo((left + right) / 2, (top + bottom) / 2, zoom, { at });
  }

  fit(options) {
    const [left, top, right, bottom] = this.extent;
    this.moveTo((left + right) / 2, (top + bottom) / 2, 1, options);
  }

  /** Go on with a movement; whether there was one. */
  step(now) {
    if (!this.way) return false;
    const { from, to, start } = this.way;
    const share = Math.min(1, (now - start) / MOVE_MS);
    const gone = eased(share);
    // The seen part changes evenly, so that its edges move in straight lines.
    const wide = 1 / from[2] + (1 / to[2] - 1 / from[2]) * gone;
    const [x, y, , ...stretch] = from.map((number, place) => number + (to[place] - number) * gone);
    [this.x, this.y, this.stretch] = [x, y, stretch];
    this.zoom = 1 / wide;
    if (share === 1) {
      [this.x, this.y, this.zoom, ...this.stretch] = to;
      this.way = null;
    }
    return true;
  }
}
