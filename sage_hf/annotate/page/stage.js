// The picture with the map over it: zoom and position, and the pointer's way over it, in the picture's own pixels.

const OVERLAY_PIXELS = 8e6; // more than some browsers can hold in a canvas is shown coarser; the map itself is not
const COLOURS = { drawn: [255, 45, 120], guess: [30, 150, 255] };
const LARGEST = 16;

export class Stage {
  // `tools` is called with `down`, `move` and `up` and a point; `looks` gives the pointer's shape.
  constructor({ view, layers, picture, map, ink }, tools) {
    Object.assign(this, { view, layers, picture, map, ink, tools });
    this.scale = 1;
    this.x = this.y = 0;
    this.width = this.height = 1;
    this.step = 1;
    this.pointers = new Map();
    this.cursor = null; // of the keyboard
    this.hover = null;
    this.colour = "drawn";
    this.opacity = 0.55;
    this.onzoom = () => {};
    new ResizeObserver(() => this.resized()).observe(view);
    for (const [name, act] of Object.entries({
      pointerdown: this.#down,
      pointermove: this.#move,
      pointerup: this.#up,
      pointercancel: this.#cancel,
      pointerleave: () => {
        this.hover = null;
        this.drawInk();
      },
      wheel: this.#wheel,
    })) {
      view.addEventListener(name, act.bind(this), { passive: false });
    }
  }

  open(width, height) {
    this.width = width;
    this.height = height;
    this.step = Math.max(1, Math.ceil(Math.sqrt((width * height) / OVERLAY_PIXELS)));
    this.map.width = Math.ceil(width / this.step);
    this.map.height = Math.ceil(height / this.step);
    this.context = this.map.getContext("2d");
    for (const layer of [this.layers, this.picture, this.map]) {
      layer.style.width = `${width}px`;
      layer.style.height = `${height}px`;
    }
    this.cursor = null;
    this.fit();
  }

  resized() {
    const ratio = window.devicePixelRatio || 1;
    this.ink.width = Math.round(this.view.clientWidth * ratio);
    this.ink.height = Math.round(this.view.clientHeight * ratio);
    if (this.fitted) this.fit();
    else this.place();
  }

  fit() {
    const { clientWidth, clientHeight } = this.view;
    if (!clientWidth || !clientHeight) return;
    this.scale = Math.min((clientWidth - 16) / this.width, (clientHeight - 16) / this.height, LARGEST);
    this.x = (clientWidth - this.width * this.scale) / 2;
    this.y = (clientHeight - this.height * this.scale) / 2;
    this.place();
    this.fitted = true;
  }

  zoom(factor, at = { x: this.view.clientWidth / 2, y: this.view.clientHeight / 2 }) {
    const smallest = Math.min(this.view.clientWidth / this.width, this.view.clientHeight / this.height, 1) / 4;
    const scale = Math.min(LARGEST, Math.max(smallest, this.scale * factor));
    this.x = at.x - ((at.x - this.x) * scale) / this.scale;
    this.y = at.y - ((at.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.place();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.place();
  }

  place() {
    this.fitted = false;
    // Some of the picture always stays in sight.
    const { clientWidth, clientHeight } = this.view;
    this.x = Math.min(clientWidth - 40, Math.max(40 - this.width * this.scale, this.x));
    this.y = Math.min(clientHeight - 40, Math.max(40 - this.height * this.scale, this.y));
    this.layers.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.layers.classList.toggle("near", this.scale > 2);
    this.drawInk();
    this.onzoom(this.scale);
  }

  // Draws the map, or a rectangle of it.
  paint(mask, box = [0, 0, this.width, this.height]) {
    const step = this.step;
    const left = Math.floor(box[0] / step);
    const top = Math.floor(box[1] / step);
    const width = Math.ceil(box[2] / step) - left;
    const height = Math.ceil(box[3] / step) - top;
    if (width <= 0 || height <= 0) return;
    const image = this.context.createImageData(width, height);
    const [red, green, blue] = COLOURS[this.colour];
    for (let y = 0; y < height; y++) {
      const row = Math.min((top + y) * step, this.height - 1) * this.width;
      for (let x = 0; x < width; x++) {
        const value = mask.values[row + Math.min((left + x) * step, this.width - 1)];
        const place = 4 * (y * width + x);
        image.data[place] = red;
        image.data[place + 1] = green;
        image.data[place + 2] = blue;
        image.data[place + 3] = value;
      }
    }
    this.context.putImageData(image, left, top);
    this.map.style.opacity = this.opacity;
  }

  show(opacity) {
    this.opacity = opacity;
    this.map.style.opacity = opacity;
  }

  // The outline of what is about to be drawn, in the view's own pixels.
  drawInk() {
    const context = this.ink.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.ink.width, this.ink.height);
    const shape = this.tools.shape(this.cursor || this.hover);
    const at = (point) => [this.x + point.x * this.scale, this.y + point.y * this.scale];
    const path = new Path2D();
    if (shape?.circle) path.arc(...at(shape.circle), Math.max(2, shape.radius * this.scale), 0, 2 * Math.PI);
    if (shape?.points?.length) {
      shape.points.forEach((point, place) => (place ? path.lineTo(...at(point)) : path.moveTo(...at(point))));
      if (shape.closed) path.closePath();
    }
    if (this.cursor) {
      const [x, y] = at(this.cursor);
      path.moveTo(x - 9, y);
      path.lineTo(x + 9, y);
      path.moveTo(x, y - 9);
      path.lineTo(x, y + 9);
    }
    for (const [width, colour] of [[3, "rgba(0, 0, 0, .65)"], [1.25, "#fff"]]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke(path);
    }
  }

  // Arrow keys: moves the keyboard's pointer, and scrolls to where it is.
  moveCursor(dx, dy) {
    const from = this.cursor || { x: this.width / 2, y: this.height / 2 };
    this.cursor = {
      x: Math.min(this.width, Math.max(0, from.x + dx)),
      y: Math.min(this.height, Math.max(0, from.y + dy)),
    };
    const x = this.x + this.cursor.x * this.scale;
    const y = this.y + this.cursor.y * this.scale;
    const { clientWidth, clientHeight } = this.view;
    const away = (value, size) => (value < 0 ? -value + 20 : value > size ? size - value - 20 : 0);
    if (away(x, clientWidth) || away(y, clientHeight)) this.pan(away(x, clientWidth), away(y, clientHeight));
    this.drawInk();
    return this.cursor;
  }

  #at(event) {
    const frame = this.view.getBoundingClientRect();
    return { x: event.clientX - frame.left, y: event.clientY - frame.top };
  }

  #inside(point) {
    return { x: (point.x - this.x) / this.scale, y: (point.y - this.y) / this.scale };
  }

  #down(event) {
    if (event.target.closest("button")) return;
    event.preventDefault();
    this.view.focus({ preventScroll: true });
    this.cursor = null;
    this.view.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.#at(event));
    if (this.pointers.size === 2) {
      // Two fingers move and zoom; what the first has begun to draw was not meant.
      this.tools.cancel();
      this.mode = "pinch";
    } else if (this.pointers.size === 1) {
      this.mode = event.button === 1 || this.tools.panning() ? "pan" : event.button === 0 ? "draw" : null;
      if (this.mode === "draw") this.tools.down(this.#inside(this.#at(event)));
    }
    this.drawInk();
  }

  #move(event) {
    const now = this.#at(event);
    const before = this.pointers.get(event.pointerId);
    this.hover = event.pointerType === "touch" ? null : this.#inside(now);
    if (!before) {
      this.drawInk();
      return;
    }
    if (this.mode === "pinch" && this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
      const spread = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
      const middle = { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 };
      this.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
      this.zoom(spread(now) / spread(before), middle);
    } else if (this.mode === "pan") {
      this.pan(now.x - before.x, now.y - before.y);
    } else if (this.mode === "draw") {
      // Fast strokes have more points than there are frames.
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) this.tools.move(this.#inside(this.#at(one)));
    }
    this.pointers.set(event.pointerId, now);
    this.drawInk();
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.mode === "draw") this.tools.up(this.#inside(this.#at(event)));
    if (this.pointers.size === 0) this.mode = null;
    this.drawInk();
  }

  #cancel(event) {
    this.pointers.delete(event.pointerId);
    if (this.mode === "draw") this.tools.cancel();
    if (this.pointers.size === 0) this.mode = null;
  }

  #wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), this.#at(event));
  }
}
