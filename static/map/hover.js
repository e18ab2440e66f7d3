// The card beside the picture under the pointer: a larger thumbnail, its name and label. Reads data-card.

const SPACE = 14;
const KEPT = 300;

export class Card {
  constructor(card, scene, { thumbnail, about }) {
    Object.assign(this, { card, scene, thumbnail, about });
    this.picture = card.querySelector("img");
    this.name = card.querySelector("[data-name]");
    this.label = card.querySelector("[data-label]");
    this.known = new Map();
    this.point = -1;
  }

  show(point, camera) {
    if (point !== this.point) {
      this.point = point;
      this.card.hidden = point < 0;
      if (point >= 0) this.#fill(point);
    }
    if (point >= 0) this.#place(point, camera);
  }

  #fill(point) {
    const id = this.scene.ids[point];
    const ratio = this.scene.ratios[point];
    this.picture.width = Math.round(176 * Math.min(1, ratio));
    this.picture.height = Math.round(176 * Math.min(1, 1 / ratio));
    this.picture.src = this.thumbnail(id);
    this.name.textContent = "";
    this.label.textContent = this.scene.label(point);
    this.card.href = `/images/${id}`;
    this.#tell(point, id);
  }

  async #tell(point, id) {
    if (!this.known.has(id)) {
      await new Promise((resolve) => setTimeout(resolve, 60)); // not for each one that the pointer only passes
      if (this.point !== point) return;
      const response = await fetch(this.about(id));
      this.known.set(id, response.ok ? await response.json() : { name: "This picture is not in the collection any more." });
      if (this.known.size > KEPT) this.known.delete(this.known.keys().next().value);
    }
    if (this.point !== point) return;
    const { name, label, folder } = this.known.get(id);
    this.name.textContent = name;
    this.label.textContent = label ?? folder ?? "";
    this.picture.alt = name;
  }

  #place(point, camera) {
    const [x, y] = camera.toScreen(...this.scene.place(point));
    const reach = (this.scene.size(camera) / 2) * 1.3 * Math.min(1, this.scene.ratios[this.point]) + SPACE;
    const [width, height] = [this.card.offsetWidth, this.card.offsetHeight];
    const left = x + reach + width < camera.width ? x + reach : Math.max(x - reach - width, 8);
    const top = Math.min(Math.max(y - height / 2, 8), Math.max(camera.height - height - 8, 8));
    this.card.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }
}
