// Two versions of one picture: shows both, and asks which one goes on.

const LARGEST = 280;

function sketch(canvas, picture, [width, height], values) {
  const scale = Math.min(1, LARGEST / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  if (!values) return;
  context.fillStyle = "rgb(255, 45, 120)";
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      const value = values[Math.floor((y + 0.5) / scale) * width + Math.floor((x + 0.5) / scale)];
      if (!value) continue;
      context.globalAlpha = (0.7 * value) / 255;
      context.fillRect(x, y, 1, 1);
    }
  }
}

// Gives "mine", "other" or "both"; Escape is "mine", which keeps what is on the screen.
export async function resolve(picture, size, mine, other) {
  const dialog = document.getElementById("conflict-dialog");
  for (const [name, version, who] of [["mine", mine, "This tab"], ["other", other, "Saved elsewhere"]]) {
    sketch(document.getElementById(`${name}-canvas`), picture, size, version.values);
    const parts = [who, version.label ?? "no label", version.note && `note: ${version.note}`];
    document.getElementById(`${name}-text`).textContent = parts.filter(Boolean).join(" · ");
  }
  dialog.returnValue = "mine";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  return dialog.returnValue || "mine";
}

// Both versions in one: the higher value of each pixel, this tab's label if it has one, and both notes.
export function merged(mine, other) {
  const { values } = other;
  const machine = [mine.source, other.source].find((source) => source !== "human");
  const notes = [other.note, mine.note].filter((text, place, all) => text && all.indexOf(text) === place);
  return {
    values: values ? mine.values.map((value, place) => Math.max(value, values[place])) : mine.values.slice(),
    source: machine ? `human on ${machine.replace("human on ", "")}` : "human",
    label: mine.label ?? other.label,
    note: notes.join("\n"),
  };
}
