/** So far from the end, in pixels, still counts as being there. */
const NEAR = 48;

/** Keeps the end of a growing page in view, as long as the reader has not scrolled away from it. */
export class Scroller {
  private following = true;
  private lastTop = 0;
  private readonly sizes: ResizeObserver;

  constructor(
    private readonly frame: HTMLElement,
    content: HTMLElement,
    private readonly onChange: (following: boolean) => void,
  ) {
    frame.addEventListener("scroll", this.scrolled, { passive: true });
    this.sizes = new ResizeObserver(() => {
      if (this.following) this.toEnd();
    });
    this.sizes.observe(content);
    this.sizes.observe(frame);
  }

  /** Goes to the end and stays there. */
  follow(): void {
    this.set(true);
    this.toEnd();
  }

  dispose(): void {
    this.frame.removeEventListener("scroll", this.scrolled);
    this.sizes.disconnect();
  }

  private toEnd(): void {
    this.frame.scrollTop = this.frame.scrollHeight;
    this.lastTop = this.frame.scrollTop;
  }

  private readonly scrolled = (): void => {
    const { scrollTop, scrollHeight, clientHeight } = this.frame;
    const near = scrollHeight - scrollTop - clientHeight <= NEAR;
    // Only a move upwards is the reader's: text that was added since makes the end farther away all the same.
    if (near) this.set(true);
    else if (scrollTop < this.lastTop) this.set(false);
    this.lastTop = scrollTop;
  };

  private set(following: boolean): void {
    if (following === this.following) return;
    this.following = following;
    this.onChange(following);
  }
}
