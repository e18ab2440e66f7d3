// Keeps the files that were sent, in this browser alone and no longer than the service keeps what it knows of them, so that a part
// of one can be drawn on the page of its results. Everything here may fail (a private window, a full disk): then no part can be drawn.

const STORE = "files";
const WAITING = "lookalike-sent";

function opened() {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open("lookalike", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore(STORE);
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

/** Run `work` over the store and return its answer when all of it is written. */
async function within(mode, work) {
  const database = await opened();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = work(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request?.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

function forgetOld(store, minutes) {
  const before = Date.now() - minutes * 60_000;
  store.openCursor().onsuccess = ({ target: { result: cursor } }) => {
    if (!cursor) return;
    if (cursor.value.sent < before) cursor.delete();
    cursor.continue();
  };
}

/** Keep `files`, which are about to be sent, until the page of their results says what they are called. */
export async function keepSent(files, minutes) {
  try {
    const name = `sent ${crypto.getRandomValues(new Uint32Array(2)).join(" ")}`;
    await within("readwrite", (store) => {
      forgetOld(store, minutes);
      return store.put({ sent: Date.now(), files }, name);
    });
    sessionStorage.setItem(WAITING, name);
  } catch {
    // See above.
  }
}

/** Let go of what was sent longer ago than `minutes`. */
export async function forgetSent(minutes) {
  try {
    await within("readwrite", (store) => forgetOld(store, minutes));
  } catch {
    // See above.
  }
}

/** Call the files that were sent last by `keys`, of which the last are theirs, in their order. */
export async function nameSent(keys) {
  try {
    const name = sessionStorage.getItem(WAITING);
    if (!name) return;
    sessionStorage.removeItem(WAITING);
    const kept = await within("readonly", (store) => store.get(name));
    await within("readwrite", (store) => {
      const own = keys.slice(-kept.files.length);
      if (own.length === kept.files.length) own.forEach((key, n) => store.put({ sent: kept.sent, files: [kept.files[n]] }, key));
      return store.delete(name);
    });
  } catch {
    // See above.
  }
}

/** Return the file that was sent as `key`, or null. */
export async function fileOf(key) {
  try {
    return (await within("readonly", (store) => store.get(key)))?.files[0] ?? null;
  } catch {
    return null;
  }
}
