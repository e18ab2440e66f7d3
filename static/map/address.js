// What is seen of the map, in the address of the page: reloading, going back and sending it to somebody show the same.

const WAIT_MS = 250;

export function readAddress() {
  const given = new URL(location.href).searchParams;
  const number = (name) => (given.has(name) && Number.isFinite(Number(given.get(name))) ? Number(given.get(name)) : null);
  const [x, y, zoom] = ["x", "y", "zoom"].map(number);
  return {
    layout: given.get("layout"),
    view: x !== null && y !== null && zoom !== null && zoom > 0 ? { x, y, zoom } : null,
    group: number("group"),
    sim: given.get("sim"),
    image: number("image"),
    q: given.get("q"),
    drawing: given.get("drawing"),
  };
}

let waiting = 0;

/** Write what is seen, once it has stayed the same for a moment. `lit` is { group, sim }, { q }, { image } or nothing. */
export function writeAddress(layout, camera, lit, { wholeMap }) {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const address = new URL(location.href);
    for (const name of ["x", "y", "zoom", "group", "sim", "image", "q"]) address.searchParams.delete(name);
    address.searchParams.set("layout", layout);
    if (!wholeMap) {
      const digits = Math.ceil(Math.log10(camera.scale)) + 1;
      address.searchParams.set("x", camera.x.toFixed(digits));
      address.searchParams.set("y", camera.y.toFixed(digits));
      address.searchParams.set("zoom", camera.zoom.toPrecision(4));
    }
    for (const [name, value] of Object.entries(lit ?? {})) {
      if (value !== null && value !== undefined) address.searchParams.set(name, value);
    }
    history.replaceState(null, "", address);
  }, WAIT_MS);
}
