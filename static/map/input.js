// What hands do: drag, wheel, two fingers, keys, and drawing around pictures. Calls what it is given; knows nothing of pictures.

const SLIP = 5; // CSS pixels that a click may move
const STEP = 80;

function between([one, other]) {
  return {
    x: (one.x + other.x) / 2,
    y: (one.y + other.y) / 2,
    apart: Math.max(Math.hypot(one.x - other.x, one.y - other.y), 1),
  };
}

export function listen(surface, camera, acts) {
  const fingers = new Map();
  let line = null; // of the lasso
  let moved = 0;

  const place = (event) => {
    const { left, top } = surface.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };

  surface.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    surface.setPointerCapture(event.pointerId);
    surface.focus({ preventScroll: true });
    fingers.set(event.pointerId, place(event));
    if (fingers.size === 1) {
      moved = 0;
      line = acts.drawing() || event.shiftKey ? [Object.values(place(event))] : null;
    } else if (line) {
      line = null;
      acts.drawn(null);
    }
    if (line) event.preventDefault();
  });

  surface.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = fingers.get(event.pointerId);
    if (!before) return acts.pointed(now.x, now.y);
    moved += Math.hypot(now.x - before.x, now.y - before.y);
    if (line) {
      line.push([now.x, now.y]);
      acts.drawn(line);
      fingers.set(event.pointerId, now);
      return;
    }
    const old = fingers.size === 2 ? between([...fingers.values()]) : null;
    fingers.set(event.pointerId, now);
    if (old) {
      const two = between([...fingers.values()]);
      camera.panBy(two.x - old.x, two.y - old.y);
      camera.zoomAt(two.apart / old.apart, two.x, two.y);
      acts.moved();
    } else if (fingers.size === 1 && moved > SLIP) {
      camera.panBy(now.x - before.x, now.y - before.y);
      acts.moved();
    }
  });

  function lift(event, kept) {
    if (!fingers.delete(event.pointerId)) return;
    const { x, y } = place(event);
    if (line && fingers.size === 0) {
      const drawn = kept && moved > SLIP ? line : null;
      line = null;
      acts.enclosed(drawn);
    } else if (kept && fingers.size === 0 && moved <= SLIP) {
      acts.clicked(x, y, event);
    }
  }

  surface.addEventListener("pointerup", (event) => lift(event, true));
  surface.addEventListener("pointercancel", (event) => lift(event, false));
  surface.addEventListener("pointerleave", (event) => {
    // A finger that is lifted leaves too, but what it touched stays pointed at.
    if (fingers.size === 0 && event.pointerType !== "touch") acts.pointed(null);
  });

  surface.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { x, y } = place(event);
      const lines = event.deltaMode === 1 ? 20 : 1;
      camera.zoomAt(Math.exp(-Math.max(-150, Math.min(150, event.deltaY * lines)) * (event.ctrlKey ? 0.01 : 0.002)), x, y);
      acts.moved();
    },
    { passive: false },
  );

  const keys = {
    ArrowLeft: () => camera.panBy(STEP, 0),
    ArrowRight: () => camera.panBy(-STEP, 0),
    ArrowUp: () => camera.panBy(0, STEP),
    ArrowDown: () => camera.panBy(0, -STEP),
    "+": () => camera.zoomAt(1.4),
    "=": () => camera.zoomAt(1.4),
    "-": () => camera.zoomAt(1 / 1.4),
    0: () => acts.fit(),
  };
  surface.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") return acts.entered();
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
    acts.moved();
    acts.aimed();
  });
}
