// Names over the map: of groups to jump to, and of months where the layout is by date. As many as have room, the foremost first.

const GAP = 6;

export class Spots {
  constructor(layer, about, { choose }) {
    this.layer = layer;
    this.groups = about.spots.map((spot) => {
      const pill = document.createElement("button");
      pill.type = "button";
      pill.tabIndex = -1; // the list of places has them for the keyboard
      pill.textContent = spot.name;
      pill.className = "spot";
      pill.toggleAttribute("data-named", spot.named);
      pill.addEventListener("click", () => choose(spot));
      return { element: pill, at: spot.at };
    });
    this.marks = about.date_marks.map(({ text, x }) => {
      const mark = document.createElement("span");
      mark.textContent = text;
      mark.className = "mark";
      return { element: mark, x };
    });
    layer.append(...[...this.groups, ...this.marks].map(({ element }) => element));
    this.measure();
  }

  /** Leave free what lies under some elements. */
  avoid(elements, stage) {
    this.covered = elements.map((element) => {
      const { left, top, right, bottom } = element.getBoundingClientRect();
      return [left - stage.left, top - stage.top, right - stage.left, bottom - stage.top];
    });
  }

  measure() {
    for (const one of [...this.groups, ...this.marks]) [one.width, one.height] = [one.element.offsetWidth, one.element.offsetHeight];
  }

  /** Put them where the map is now; `busy` hides all, while the layout changes. */
  place(scene, camera, busy) {
    const byDate = scene.layout.name === "date" && this.marks.length > 0;
    const taken = [...this.covered];
    const above = scene.size(camera) / 2 + 2;
    for (const one of this.groups) {
      const [x, y] = camera.toScreen(...one.at[scene.layout.name]);
      this.#put(one, !busy && !byDate && [x, y - above - one.height / 2], camera, taken);
    }
    const [, top] = camera.toScreen(0, scene.layout.extent[1]);
    for (const one of this.marks) {
      const [x] = camera.toScreen(one.x, 0);
      this.#put(one, !busy && byDate && [x, Math.max(top - one.height, 64)], camera, taken);
    }
  }

  #put(one, place, camera, taken) {
    const box = place && [place[0] - one.width / 2, place[1] - one.height / 2, place[0] + one.width / 2, place[1] + one.height / 2];
    const fits =
      box &&
      box[0] > -one.width / 2 &&
      box[2] < camera.width + one.width / 2 &&
      box[1] > 0 &&
      box[3] < camera.height &&
      !taken.some((other) => box[0] < other[2] + GAP && box[2] > other[0] - GAP && box[1] < other[3] + GAP && box[3] > other[1] - GAP);
    one.element.toggleAttribute("data-shown", Boolean(fits));
    if (!fits) return;
    taken.push(box);
    one.element.style.transform = `translate(${Math.round(box[0])}px, ${Math.round(box[1])}px)`;
  }
}
