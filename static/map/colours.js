// The colours of the map: of each point by its hue, and those of the page, light or dark.

const NO_COLOUR = 255;

function parts(colour) {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

/** Hue 0…1 to red, green, blue 0…255. */
function fromHue(hue, saturation, lightness) {
  const chroma = saturation * Math.min(lightness, 1 - lightness);
  const part = (shift) => {
    const place = (shift + hue * 12) % 12;
    return Math.round(255 * (lightness - chroma * Math.max(-1, Math.min(place - 3, 9 - place, 1))));
  };
  return [part(0), part(8), part(4)];
}

/** Return the colours of all points, uint8 red, green, blue each, of the paper and of marks. */
export function lookOf(scene, element) {
  const style = getComputedStyle(element);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const [paper, accent, plain] = ["--map-paper", "--map-mark", "--muted"].map((name) => parts(style.getPropertyValue(name)));
  const wheel = Array.from({ length: 256 }, (_, hue) => (hue === NO_COLOUR ? plain : fromHue(hue / NO_COLOUR, 0.55, dark ? 0.62 : 0.5)));
  const points = new Uint8Array(3 * scene.count);
  for (let i = 0; i < scene.count; i++) points.set(wheel[scene.hues[i]], 3 * i);
  return { points, paper, accent };
}
