/**
 * Gives the focus to the field to write in, after a button that is gone now. Not where that would bring up a keyboard on
 * the screen.
 */
export function focusMessage(): void {
  if (!matchMedia("(pointer: coarse)").matches) document.getElementById("message")?.focus({ preventScroll: true });
}
