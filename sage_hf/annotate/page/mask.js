// The map that is drawn: one byte a pixel of the picture at its full resolution, and what undoes each change.

const HISTORY_BYTES = 200e6;

export class Mask {
  constructor(width, height, values = null, source = "human") {
    this.width = width;
    this.height = height;
    this.values = values || new Uint8Array(width * height);
    this.source = source;
    this.undone = [];
    this.done = [];
    this.bytes = 0;
    this.open = null; // the change under way
  }

  get blank() {
    return !this.values.some((value) => value > 0);
  }

  // The whole map before a change is what it is compared with when the change ends: strokes cross themselves.
  begin() {
    this.open = { before: this.values.slice(), source: this.source, box: null };
  }

  // Ends a change: keeps the rectangle in which something differs. Says whether anything does.
  commit(source = this.source) {
    const { before, source: sourceBefore, box } = this.open;
    this.open = null;
    this.source = source;
    if (!box) return false;
    const old = this.#cut(before, box);
    const now = this.#cut(this.values, box);
    if (sourceBefore === source && old.every((value, place) => value === now[place])) return false;
    this.done.push({ box, before: old, after: now, sourceBefore, sourceAfter: source });
    this.undone = [];
    this.bytes += old.length * 2;
    while (this.bytes > HISTORY_BYTES && this.done.length > 1) this.bytes -= this.done.shift().before.length * 2;
    return true;
  }

  // Gives up a change.
  abort() {
    if (!this.open) return;
    this.values = this.open.before;
    this.open = null;
  }

  undo() {
    return this.#step(this.done, this.undone, "before", "sourceBefore");
  }

  redo() {
    return this.#step(this.undone, this.done, "after", "sourceAfter");
  }

  #step(from, to, side, source) {
    const change = from.pop();
    if (!change) return false;
    to.push(change);
    this.#paste(change[side], change.box);
    this.source = change[source];
    return true;
  }

  #cut(values, [left, top, right, bottom]) {
    const width = right - left;
    const piece = new Uint8Array(width * (bottom - top));
    for (let y = top; y < bottom; y++) {
      const start = y * this.width + left;
      piece.set(values.subarray(start, start + width), (y - top) * width);
    }
    return piece;
  }

  #paste(piece, [left, top, right, bottom]) {
    const width = right - left;
    for (let y = top; y < bottom; y++) {
      this.values.set(piece.subarray((y - top) * width, (y - top + 1) * width), y * this.width + left);
    }
  }

  // A rectangle in whole pixels inside the picture, added to the change under way; null if there is none.
  #clip(left, top, right, bottom) {
    const box = [
      Math.max(0, Math.floor(left)),
      Math.max(0, Math.floor(top)),
      Math.min(this.width, Math.ceil(right)),
      Math.min(this.height, Math.ceil(bottom)),
    ];
    if (box[0] >= box[2] || box[1] >= box[3]) return null;
    const before = this.open?.box;
    if (this.open) {
      this.open.box = before
        ? [
            Math.min(before[0], box[0]),
            Math.min(before[1], box[1]),
            Math.max(before[2], box[2]),
            Math.max(before[3], box[3]),
          ]
        : box;
    }
    return box;
  }

  // All pixels whose centres are at most `radius` from the line between two points.
  stroke(from, to, radius, value) {
    const reach = Math.max(radius, 0.5);
    const box = this.#clip(
      Math.min(from.x, to.x) - reach,
      Math.min(from.y, to.y) - reach,
      Math.max(from.x, to.x) + reach,
      Math.max(from.y, to.y) + reach,
    );
    if (!box) return null;
    const dx = to.x - from.x;
    const dy = to.y - from.y;
    const length = dx * dx + dy * dy;
    const limit = reach * reach;
    for (let y = box[1]; y < box[3]; y++) {
      const py = y + 0.5 - from.y;
      for (let x = box[0]; x < box[2]; x++) {
        const px = x + 0.5 - from.x;
        const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const ex = px - along * dx;
        const ey = py - along * dy;
        if (ex * ex + ey * ey <= limit) this.values[y * this.width + x] = value;
      }
    }
    return box;
  }

  // All pixels whose centres lie in a box.
  box(from, to, value) {
    const box = this.#clip(
      Math.round(Math.min(from.x, to.x)),
      Math.round(Math.min(from.y, to.y)),
      Math.round(Math.max(from.x, to.x)),
      Math.round(Math.max(from.y, to.y)),
    );
    if (!box) return null;
    for (let y = box[1]; y < box[3]; y++) this.values.fill(value, y * this.width + box[0], y * this.width + box[2]);
    return box;
  }

  // All pixels whose centres lie inside an outline, by the even-odd rule.
  polygon(points, value) {
    if (points.length < 3) return null;
    const xs = points.map((point) => point.x);
    const ys = points.map((point) => point.y);
    const box = this.#clip(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys));
    if (!box) return null;
    for (let y = box[1]; y < box[3]; y++) {
      const middle = y + 0.5;
      const crossings = [];
      points.forEach((a, place) => {
        const b = points[(place + 1) % points.length];
        if (a.y <= middle !== b.y <= middle) crossings.push(a.x + ((middle - a.y) / (b.y - a.y)) * (b.x - a.x));
      });
      crossings.sort((a, b) => a - b);
      for (let pair = 0; pair + 1 < crossings.length; pair += 2) {
        const first = Math.max(box[0], Math.ceil(crossings[pair] - 0.5));
        const last = Math.min(box[2], Math.ceil(crossings[pair + 1] - 0.5));
        if (first < last) this.values.fill(value, y * this.width + first, y * this.width + last);
      }
    }
    return box;
  }

  replace(values) {
    this.#clip(0, 0, this.width, this.height);
    this.values = values;
  }
}
