/** The address of a link that may be followed, or null. Relative addresses would lead into this page and are refused. */
export function safeAddress(address: string): string | null {
  if (!/^(?:https?|mailto):/i.test(address)) return null;
  try {
    const url = new URL(address);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}
