// The parts of the page that know nothing of pictures: what is said for a moment, sliders, the tools' buttons, labels.

import { KEYS } from "./keys.js";

export const $ = (id) => document.getElementById(id);

const element = (kind, properties) => Object.assign(document.createElement(kind), properties);

let toasting;
export function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toasting);
  toasting = setTimeout(() => ($("toast").hidden = true), 5000);
}

// Over the picture, until it is replaced; nothing if there is no text.
export function message(text) {
  $("message").textContent = text || "";
  $("message").hidden = !text;
}

export function wireSlider(id, unit, set) {
  const input = $(id);
  const update = () => {
    $(`${id}-out`).textContent = `${input.value}${unit}`;
    set(Number(input.value));
  };
  input.addEventListener("input", update);
  update();
}

export function scaleSlider(id, factor) {
  const input = $(id);
  const now = Number(input.value);
  const wanted = Math.round(now * factor);
  input.value = factor > 1 ? Math.max(now + 1, wanted) : Math.min(now - 1, wanted);
  input.dispatchEvent(new Event("input"));
}

const toolButtons = () => [...document.querySelectorAll(".tools [data-tool]")];

export function showTool(tool) {
  for (const button of toolButtons()) {
    const on = button.dataset.tool === tool;
    button.setAttribute("aria-checked", on);
    button.tabIndex = on ? 0 : -1;
  }
  $("view").dataset.tool = tool;
}

// Radio buttons, of which the arrow keys choose.
export function wireTools(choose) {
  for (const button of toolButtons()) {
    button.addEventListener("click", () => choose(button.dataset.tool));
    button.addEventListener("keydown", (event) => {
      const way = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
      if (!way) return;
      const all = toolButtons();
      const other = all[(all.indexOf(button) + way + all.length) % all.length];
      choose(other.dataset.tool);
      other.focus();
      event.preventDefault();
      event.stopPropagation();
    });
  }
}

export function listLabels(classes, choose) {
  $("label-list").replaceChildren(
    ...classes.map((name, place) => {
      const row = document.createElement("label");
      const input = element("input", { type: "radio", name: "label", value: name });
      input.addEventListener("change", () => choose(name));
      row.append(input, element("span", { textContent: name }));
      if (place < 9) row.append(element("kbd", { textContent: place + 1 }));
      return row;
    }),
  );
}

export function showKeys() {
  $("keys").replaceChildren(
    ...KEYS.map(([keys, text]) => {
      const row = document.createElement("div");
      row.append(element("dt", { textContent: keys }), element("dd", { textContent: text }));
      return row;
    }),
  );
}
