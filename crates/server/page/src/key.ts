const NAME = "minke-key";

/** Storage may be forbidden; then the key lives as long as the page. */
let inMemory: string | null = null;

function read(storage: () => globalThis.Storage): string | null {
  try {
    return storage().getItem(NAME);
  } catch {
    return null;
  }
}

export function apiKey(): string | null {
  return inMemory ?? read(() => sessionStorage) ?? read(() => localStorage);
}

export function setApiKey(key: string, remember: boolean): void {
  inMemory = key;
  try {
    localStorage.removeItem(NAME);
    sessionStorage.removeItem(NAME);
    (remember ? localStorage : sessionStorage).setItem(NAME, key);
  } catch {
    // Kept in memory alone.
  }
}
