// Asking the service: JSON there and back, with its own words where it refuses.

export async function ask(url, body, method = "POST") {
  const options = body && { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new Error(`The service answered with status ${response.status}.`);
  }
  if (!response.ok) throw new Error(answer.error?.message ?? `The service answered with status ${response.status}.`);
  return answer;
}

/** A picture in a list: a link with its thumbnail. */
export function tile(id, src, alt, text = "") {
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = `/images/${id}`;
  const picture = new Image(64, 64);
  Object.assign(picture, { src, alt, loading: "lazy", decoding: "async" });
  link.append(picture);
  if (text) link.append(Object.assign(document.createElement("span"), { className: "rank", textContent: text }));
  item.append(link);
  return item;
}

export function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
