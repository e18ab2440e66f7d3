// The panel of what is selected: how many, some of them, and what can be done with them. Reads data-panel and data-act.

import { ask, save, tile } from "./asking.js";

const SHOWN = 10;

/** As CSV, quoted where need be; what a spreadsheet would take for a formula is kept a text. */
export function asCsv(rows) {
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : Array.isArray(value) ? value.join("; ") : String(value);
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const names = ["image_id", "name", "folder", "label", "tags", "taken_at"];
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
}

/** At most `most` of a list, evenly spread over it. */
function spread(list, most) {
  if (list.length <= most) return list;
  return Array.from({ length: most }, (_, n) => list[Math.floor(((n + 0.5) * list.length) / most)]);
}

export class Panel {
  constructor(panel, { thumbnail, clear, zoom }) {
    Object.assign(this, { panel, thumbnail });
    this.part = (name) => panel.querySelector(`[data-${name}]`);
    this.ids = [];
    const acts = {
      clear,
      zoom,
      csv: () => this.#export((rows) => save("selection.csv", "text/csv", asCsv(rows))),
      json: () => this.#export((rows) => save("selection.json", "application/json", JSON.stringify(rows, null, 2))),
      duplicates: () => this.#duplicates(),
      more: () => this.#more(),
    };
    for (const button of panel.querySelectorAll("[data-act]")) button.addEventListener("click", acts[button.dataset.act]);
    this.part("tag")?.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#tag(new FormData(event.target).get("tag"));
    });
    this.part("give")?.addEventListener("submit", (event) => {
      event.preventDefault();
      if (event.submitter.matches("[data-take]")) this.#unlabel();
      else this.#label(new FormData(event.target).get("as"));
    });
    this.part("remove")?.addEventListener("formdata", (event) => {
      for (const id of this.ids) event.formData.append("image_ids", id);
    });
  }

  show(ids, text) {
    this.ids = ids;
    this.panel.hidden = ids.length === 0;
    this.part("title").textContent = text ?? `${ids.length.toLocaleString("en")} selected`;
    this.part("pictures").replaceChildren(...spread(ids, SHOWN).map((id) => tile(id, this.thumbnail(id), `Image ${id}`)));
    this.part("answer").replaceChildren();
    this.#say("");
  }

  #say(text, kind = "done") {
    const state = this.part("said");
    state.textContent = text;
    state.dataset.kind = kind;
    if (text) state.scrollIntoView({ block: "nearest" });
  }

  /** Do something that asks the service, and say what came of it; what came after the selection changed is not shown. */
  async #during(text, act) {
    const ids = this.ids;
    this.#say(text, "busy");
    this.part("answer").replaceChildren();
    try {
      const said = await act(ids);
      if (this.ids === ids) this.#say(said ?? "");
    } catch (error) {
      if (this.ids === ids) this.#say(error.message, "problem");
    }
  }

  #export(write) {
    this.#during("Asking for their names…", async (ids) => {
      const { images } = await ask("/api/v1/map/images", { image_ids: ids });
      write(images);
      return `${images.length.toLocaleString("en")} saved.`;
    });
  }

  #tag(tag) {
    this.#during("Tagging…", async (ids) => {
      const answer = await ask("/api/v1/tags", { tag, image_ids: ids });
      return `${answer.image_ids.length.toLocaleString("en")} tagged “${answer.tag}”. Find them here by that word.`;
    });
  }

  #label(label) {
    this.#during("Labelling…", async (ids) => {
      const answer = await ask("/api/v1/labels", { label, image_ids: ids });
      return `${answer.image_ids.length.toLocaleString("en")} labelled “${answer.label}”. Find them here by that word.`;
    });
  }

  #unlabel() {
    this.#during("Taking labels away…", async (ids) => {
      const { taken } = await ask("/api/v1/labels", { image_ids: ids }, "DELETE");
      return taken === 1 ? "1 label taken away." : `${taken.toLocaleString("en")} labels taken away.`;
    });
  }

  #duplicates() {
    this.#during("Looking for duplicates…", async (ids) => {
      const { count, pairs } = await ask("/api/v1/duplicates/among", { image_ids: ids });
      const list = this.#list();
      for (const { relation, images } of pairs) {
        const pair = images.map((image) => tile(image.image_id, image.thumbnail.url, image.name, relation));
        list.append(...pair);
      }
      return count ? `${count.toLocaleString("en")} pair${count === 1 ? "" : "s"}, the surest first:` : "There are no duplicates in it.";
    });
  }

  #more() {
    this.#during("Searching…", async (ids) => {
      const { examples, images } = await ask("/api/v1/map/more", { image_ids: ids });
      this.#list().append(...images.map((image) => tile(image.image_id, image.thumbnail.url, image.name)));
      const all = examples === ids.length ? "" : ` (by ${examples} of them)`;
      return images.length ? `More like these${all}:` : "Everything like these is selected already.";
    });
  }

  #list() {
    const list = Object.assign(document.createElement("ul"), { className: "tiles" });
    this.part("answer").replaceChildren(list);
    return list;
  }
}
