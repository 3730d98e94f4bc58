/** 96 random bits. `crypto.randomUUID` is missing where the page is not served over https or from the loopback. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const ID_PATTERN = /^[A-Za-z0-9_-]{1,64}$/;
