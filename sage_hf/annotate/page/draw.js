// The tools: what the pointer, or the keyboard in its place, does to the map.

export class Drawing {
  // `changed(box)` is called while drawing, `ended()` after each change.
  constructor({ changed, ended, allowed }) {
    Object.assign(this, { changed, ended, allowed });
    this.tool = "brush";
    this.size = 40; // diameter, in the picture's pixels
    this.strength = 255;
    this.mask = null;
    this.points = null; // of the stroke, lasso or box under way
    this.held = false; // Space: the picture is moved
  }

  panning = () => this.tool === "pan" || this.held;

  get value() {
    return this.tool === "eraser" ? 0 : this.strength;
  }

  down(point) {
    if (!this.mask || !this.allowed() || this.tool === "pan") return;
    this.mask.begin();
    this.points = [point];
    if (this.#strokes) this.#paint(this.mask.stroke(point, point, this.size / 2, this.value));
  }

  move(point) {
    if (!this.points) return;
    const last = this.points[this.points.length - 1];
    if (this.#strokes) this.#paint(this.mask.stroke(last, point, this.size / 2, this.value));
    if (this.tool === "box") this.points = [this.points[0], point];
    else if (Math.hypot(point.x - last.x, point.y - last.y) > 0.5) this.points.push(point);
  }

  up(point) {
    if (!this.points) return;
    this.move(point);
    const points = this.points;
    this.points = null;
    if (this.tool === "lasso") this.#paint(this.mask.polygon(points, this.value));
    if (this.tool === "box" && points[1]) this.#paint(this.mask.box(points[0], points[1], this.value));
    this.ended();
  }

  cancel() {
    if (!this.points) return false;
    this.points = null;
    this.mask.abort();
    this.changed();
    return true;
  }

  // What is drawn over the picture: the brush's size at a point, or the outline that is being made.
  shape(point) {
    if (this.panning()) return null;
    if (this.#strokes) return point && { circle: point, radius: this.size / 2 };
    if (!this.points) return null;
    if (this.tool === "lasso") return { points: this.points, closed: true };
    const [a, b] = this.points;
    if (!b) return null;
    return { points: [a, { x: b.x, y: a.y }, b, { x: a.x, y: b.y }], closed: true };
  }

  get #strokes() {
    return this.tool === "brush" || this.tool === "eraser";
  }

  #paint(box) {
    if (box) this.changed(box);
  }
}
