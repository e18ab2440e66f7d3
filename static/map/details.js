// Fetches the thumbnails of what is in view once pictures are drawn larger than their cells, at most as many as there are slots; those
// that were not in view for the longest time make room.

const AT_ONCE = 6;
const POINTS_FROM = 22; // CSS pixels from which a point becomes a picture

export class Details {
  constructor(scene, drawing, { thumbnail, cell, onCame }) {
    Object.assign(this, { scene, drawing, thumbnail, onCame });
    this.cell = cell;
    this.slots = Array.from({ length: drawing.slots }, () => -1); // which point has each
    this.slotOf = new Map(); // the one used last comes last
    this.queue = [];
    this.running = new Set();
    this.failed = new Set();
  }

  get shown() {
    return this.slotOf.size;
  }

  /** Look what is wanted now; cheap enough for each time that the view comes to rest. */
  look(camera, ratio) {
    const size = this.scene.size(camera);
    const from = this.cell === null ? POINTS_FROM : (1.15 * this.cell) / ratio;
    this.queue = size < from ? [] : this.#wanted(camera);
    this.#next();
  }

  #wanted(camera) {
    const half = this.scene.size(camera) / 2;
    const box = [...camera.toMap(-half, -half), ...camera.toMap(camera.width + half, camera.height + half)];
    const seen = this.scene.inside(box);
    const [across, down] = camera.scales;
    const away = (point) => {
      const [x, y] = this.scene.place(point);
      return ((x - camera.x) * across) ** 2 + ((y - camera.y) * down) ** 2;
    };
    const nearest = seen.map((point) => [away(point), point]).sort((one, other) => one[0] - other[0]);
    const wanted = nearest.slice(0, this.slots.length).map(([, point]) => point);
    for (const point of wanted.toReversed()) this.#touch(point);
    return wanted.filter((point) => !this.slotOf.has(point) && !this.running.has(point) && !this.failed.has(point));
  }

  #touch(point) {
    const slot = this.slotOf.get(point);
    if (slot === undefined) return;
    this.slotOf.delete(point);
    this.slotOf.set(point, slot);
  }

  #next() {
    while (this.running.size < AT_ONCE && this.queue.length) this.#fetch(this.queue.shift());
  }

  async #fetch(point) {
    this.running.add(point);
    try {
      const response = await fetch(this.thumbnail(this.scene.ids[point]));
      if (!response.ok) throw new Error(response.statusText);
      this.#put(point, await createImageBitmap(await response.blob(), this.drawing.detailSize));
      this.onCame();
    } catch {
      this.failed.add(point); // gone, or of a format that this browser does not read: the small picture stays
    }
    this.running.delete(point);
    this.#next();
  }

  #put(point, bitmap) {
    let slot = this.slots.indexOf(-1);
    let before = -1;
    if (slot < 0) {
      [before, slot] = this.slotOf.entries().next().value;
      this.slotOf.delete(before);
    }
    this.slots[slot] = point;
    this.slotOf.set(point, slot);
    this.drawing.setDetail(slot, point, bitmap, before);
  }
}

/** Fetch the atlases one after the other. */
export async function loadAtlases(atlases, drawing, onCame) {
  drawing.prepareAtlases(atlases.urls.length, atlases.cell);
  for (const [number, url] of atlases.urls.entries()) {
    const response = await fetch(url);
    if (!response.ok) throw new Error("The collection has changed since this page was opened. Load the page again.");
    drawing.setAtlas(number, await createImageBitmap(await response.blob()));
    onCame(number + 1);
  }
}
