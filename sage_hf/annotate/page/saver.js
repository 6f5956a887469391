// Saves by itself, a moment after each change, one request at a time, and says when it can't.

import { Stale } from "./api.js";

const PAUSE = 600; // milliseconds after the last change
const AGAIN = [1000, 3000, 10000];

export class Saver {
  // `work()` gives { index, base, change, values } as they are now; `saved(record, index)`, `stale(latest, index)`,
  // `tell(text, kind)` say what came of it.
  constructor(api, { work, saved, stale, tell }) {
    Object.assign(this, { api, work, saved, stale, tell });
    this.dirty = false;
    this.failures = 0;
    this.running = null;
    this.timer = null;
  }

  touch() {
    this.dirty = true;
    this.tell("Not saved yet", "waiting");
    this.#later(PAUSE);
  }

  #later(pause) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush().catch(() => {}), pause);
  }

  // Resolves when everything is saved; throws if it can't be now. Tries again by itself.
  async flush() {
    clearTimeout(this.timer);
    while (this.running) await this.running.catch(() => {});
    if (!this.dirty) return;
    this.running = this.#save();
    try {
      await this.running;
    } finally {
      this.running = null;
    }
    if (this.dirty) await this.flush();
  }

  async #save() {
    const { index, base, change, values } = this.work();
    this.dirty = false;
    this.tell("Saving …", "waiting");
    try {
      const record = await this.api.save(index, { base, ...change }, values);
      this.failures = 0;
      this.saved(record, index);
      if (!this.dirty) this.tell("Saved", "good");
    } catch (error) {
      if (error instanceof Stale) {
        this.stale(error.latest, index);
        throw error;
      }
      this.dirty = true;
      this.tell(`Not saved: ${error.message}`, "bad");
      // What the server refuses is not mended by asking again.
      if (error.status !== 400) this.#later(AGAIN[Math.min(this.failures++, AGAIN.length - 1)]);
      throw error;
    }
  }
}
