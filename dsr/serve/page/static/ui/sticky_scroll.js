/** Keeps the end of a growing text in view, but only while the reader is there. */

const NEAR = 32; // px from the end that still count as the end

export class StickyScroll {
  /**
   * @param {HTMLElement} view what scrolls
   * @param {HTMLElement} content what grows in it
   * @param {HTMLElement} button takes the reader to the end
   */
  constructor(view, content, button) {
    this.view = view;
    this.button = button;
    this.stuck = true;
    this.top = 0;
    view.addEventListener("scroll", () => this.scrolled(), { passive: true });
    button.addEventListener("click", () => this.toEnd());
    const sizes = new ResizeObserver(() => this.grown());
    sizes.observe(content);
    sizes.observe(view);
  }

  get distance() {
    return this.view.scrollHeight - this.view.clientHeight - this.view.scrollTop;
  }

  scrolled() {
    const up = this.view.scrollTop < this.top - 1;
    this.top = this.view.scrollTop;
    if (this.distance <= NEAR) this.stuck = true;
    else if (up) this.stuck = false;
    this.show();
  }

  grown() {
    if (this.stuck) this.view.scrollTop = this.view.scrollHeight;
    this.top = this.view.scrollTop;
    this.show();
  }

  show() {
    this.button.hidden = this.distance <= NEAR;
  }

  toEnd() {
    this.stuck = true;
    this.grown();
  }
}
