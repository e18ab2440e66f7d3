// Where one looks at the map: the point in the middle, and how far one has zoomed in. Places on the map are 0…1, y downwards; on the
// screen CSS pixels from the corner of the map.

const MOVE_MS = 700;
const MARGIN = 0.9; // share of the window that the whole map takes

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
    this.mostZoom = 100;
    this.way = null;
  }

  /** CSS pixels that one unit of the map takes. */
  get scale() {
    return this.base * this.zoom;
  }

  /** The same when the whole map is seen. */
  get base() {
    const [left, top, right, bottom] = this.extent;
    return MARGIN * Math.min(this.width / Math.max(right - left, 1e-6), this.open / Math.max(bottom - top, 1e-6));
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
    return [(x - this.x) * this.scale + middleX, (y - this.y) * this.scale + middleY];
  }

  toMap(x, y) {
    const [middleX, middleY] = this.middle;
    return [(x - middleX) / this.scale + this.x, (y - middleY) / this.scale + this.y];
  }

  /** What is seen, as left, top, right, bottom. */
  get box() {
    return [...this.toMap(0, 0), ...this.toMap(this.width, this.height)];
  }

  resize(width, height, top, bottom) {
    [this.width, this.height] = [Math.max(width, 1), Math.max(height, 1)];
    [this.top, this.bottom] = [Math.min(top, height / 3), Math.min(bottom, height * 0.6)];
  }

  panBy(x, y) {
    this.way = null;
    this.#put(this.x - x / this.scale, this.y - y / this.scale, this.zoom);
  }

  /** Zoom so that what lies at a point of the screen stays there. */
  zoomAt(factor, x = this.middle[0], y = this.middle[1]) {
    this.way = null;
    const [mapX, mapY] = this.toMap(x, y);
    this.#put(this.x, this.y, this.zoom * factor);
    const [nowX, nowY] = this.toMap(x, y);
    this.#put(this.x + mapX - nowX, this.y + mapY - nowY, this.zoom);
  }

  #put(x, y, zoom) {
    const [left, top, right, bottom] = this.extent;
    this.zoom = Math.min(Math.max(zoom, 0.5), this.mostZoom);
    this.x = Math.min(Math.max(x, left), right);
    this.y = Math.min(Math.max(y, top), bottom);
  }

  /** Move to a place; `now` is the time of the frame in milliseconds. */
  moveTo(x, y, zoom, { at = null } = {}) {
    const before = [this.x, this.y, this.zoom];
    this.way = null;
    this.#put(x, y, zoom);
    if (this.still || at === null) return;
    this.way = { from: before, to: [this.x, this.y, this.zoom], start: at };
    [this.x, this.y, this.zoom] = before;
  }

  /** Move to where a box of the map fills the window, or as far in as makes sense. */
  showBox([left, top, right, bottom], { at = null, mostZoom = this.mostZoom } = {}) {
    const across = this.width / Math.max(right - left, 1e-6);
    const down = this.open / Math.max(bottom - top, 1e-6);
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
    [this.x, this.y] = [from[0] + (to[0] - from[0]) * gone, from[1] + (to[1] - from[1]) * gone];
    this.zoom = 1 / wide;
    if (share === 1) {
      [this.x, this.y, this.zoom] = to;
      this.way = null;
    }
    return true;
  }
}
