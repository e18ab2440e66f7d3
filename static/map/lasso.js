// The line that is drawn around pictures, and which of them it encloses.

/** Whether a point lies within a closed line: it does when a ray from it crosses the line an odd number of times. */
function encloses(line, x, y) {
  let inside = false;
  for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
    const [[ax, ay], [bx, by]] = [line[i], line[j]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

/** Return the points of the scene that a line on the screen encloses; where some are lit, only those. */
export function enclosed(scene, camera, line, isLit) {
  const corners = line.map(([x, y]) => camera.toMap(x, y));
  const [xs, ys] = [corners.map(([x]) => x), corners.map(([, y]) => y)];
  const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  return scene.inside(box).filter((point) => isLit(point) && encloses(corners, ...scene.place(point)));
}

/** Show the line as it is drawn; null hides it. */
export function showLine(path, line) {
  path.setAttribute("d", line ? `M${line.map((corner) => corner.map((n) => n.toFixed(1)).join(" ")).join("L")}Z` : "");
}
