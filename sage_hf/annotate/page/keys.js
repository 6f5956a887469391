// The keyboard: one table for what keys do and for what the help says of them.

export const KEYS = [
  ["1 … 9", "Choose a label"],
  ["Enter", "Done, and on to the next unfinished picture"],
  ["X", "Nothing matters here, and on"],
  ["K", "Skip: leave the picture out, and on"],
  ["N or Page down", "Next picture"],
  ["P or Page up", "Previous picture"],
  ["U", "Next unfinished picture"],
  ["B, E, L, R, H", "Brush, eraser, lasso, box, move"],
  ["[ and ]", "Smaller and larger brush"],
  ["Z, Shift+Z", "Undo, redo (Ctrl works too)"],
  ["C", "Clear the map"],
  ["G", "Accept the model's guess"],
  ["V", "Hide the map while the key is held"],
  ["+, -, F", "Larger, smaller, whole picture; the wheel and two fingers work too"],
  ["Space held and drag", "Move the picture"],
  ["T", "Write the note; Esc leaves it"],
  ["Arrow keys", "On the picture: move the pointer by half a brush, with Shift by a pixel"],
  ["Space", "After arrow keys: begin and end a stroke, lasso or box"],
  ["Esc", "Give up what is being drawn"],
  ["?", "This help"],
];

const LETTERS = {
  b: "tool:brush", e: "tool:eraser", l: "tool:lasso", r: "tool:box", h: "tool:pan", n: "next", p: "previous",
  u: "unfinished", x: "nothing", k: "skip", c: "clear", g: "accept", t: "note", f: "fit", z: "undo", y: "redo",
  "[": "smaller", "]": "larger", "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", "?": "help", pagedown: "next",
  pageup: "previous", enter: "done",
};
const ARROWS = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };

// The pointer that the keyboard moves over the picture, in the mouse's place.
export function keyboardPointer(stage, drawing) {
  return {
    move: (dx, dy, fine) => {
      const step = fine ? 1 : Math.max(1, drawing.size / 2);
      const point = stage.moveCursor(dx * step, dy * step);
      if (drawing.points) drawing.move(point);
      stage.drawInk();
    },
    ready: () => stage.cursor !== null && drawing.tool !== "pan",
    press: () => {
      if (drawing.points) drawing.up(stage.cursor);
      else drawing.down(stage.cursor);
      stage.drawInk();
    },
    cancel: () => drawing.cancel(),
    hold: (on) => {
      drawing.held = on;
      stage.view.classList.toggle("held", on);
      stage.drawInk();
    },
    hide: (on) => stage.map.classList.toggle("hidden", on),
  };
}

// `act(name)` does what a key stands for; `view` is the picture, `cursor` a
// `keyboardPointer`.
export function listen(view, act, cursor) {
  const dialog = () => document.querySelector("dialog[open]");
  document.addEventListener("keydown", (event) => {
    if (dialog() || event.isComposing || event.altKey) return;
    const field = event.target.closest("textarea, input:not([type=range]):not([type=radio])");
    const key = event.key.toLowerCase();
    if (field) {
      if (key === "escape") view.focus();
      return;
    }
    if ((event.ctrlKey || event.metaKey) && !"zy".includes(key)) return;
    const onPicture = event.target === view;
    if (key in ARROWS) {
      if (!onPicture) return; // they move sliders and scroll
      const [dx, dy] = ARROWS[key];
      cursor.move(dx, dy, event.shiftKey);
    } else if (key === " ") {
      if (!onPicture) return; // it presses buttons
      if (!event.repeat) {
        if (cursor.ready()) cursor.press();
        else cursor.hold(true);
      }
    } else if (key === "escape") {
      if (!cursor.cancel()) return;
    } else if (key === "v") {
      cursor.hide(true);
    } else if (key === "enter" && event.target.closest("button, summary, a, input, form")) {
      return; // it presses what has the focus
    } else if (/^[1-9]$/.test(key)) {
      act(`label:${key}`);
    } else if (key === "z" && event.shiftKey) {
      act("redo");
    } else if (key in LETTERS) {
      if (event.repeat && !["z", "y", "[", "]", "+", "=", "-"].includes(key)) return;
      act(LETTERS[key]);
    } else {
      return;
    }
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") cursor.hold(false);
    if (event.key.toLowerCase() === "v") cursor.hide(false);
  });
  window.addEventListener("blur", () => {
    cursor.hold(false);
    cursor.hide(false);
  });
}
