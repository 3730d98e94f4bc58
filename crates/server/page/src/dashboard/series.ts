import type { Lines, SeriesAnswer } from "./types";

/** The lines of one file as columns; NaN where a line has no such number. */
export class Table {
  steps: number[] = [];
  readonly columns = new Map<string, number[]>();

  get length(): number {
    return this.steps.length;
  }

  add(lines: Lines): boolean {
    // What is known already may come once more; a gap may not.
    if (lines.from > this.length) return false;
    const skip = this.length - lines.from;
    const before = this.length;
    this.steps.push(...lines.steps.slice(skip));
    if (this.length === before) return false;
    for (const [name, values] of lines.columns) {
      let column = this.columns.get(name);
      if (column === undefined) {
        column = new Array<number>(before).fill(NaN);
        this.columns.set(name, column);
      }
      for (let i = skip; i < values.length; i++) column.push(values[i] ?? NaN);
    }
    for (const column of this.columns.values()) while (column.length < this.length) column.push(NaN);
    return true;
  }
}

/** The numbers of a stage. */
export class Series {
  generation = -1;
  metrics = new Table();
  timings = new Table();
  /** Rises with every change, so that drawings know when they are old. */
  version = 0;

  /** Takes an answer in; whether there is more to ask for. */
  add(answer: SeriesAnswer): boolean {
    if (answer.generation !== this.generation) {
      this.generation = answer.generation;
      this.metrics = new Table();
      this.timings = new Table();
      this.version++;
    }
    const grew = [this.metrics.add(answer.metrics), this.timings.add(answer.timings)];
    if (grew.includes(true)) this.version++;
    return this.metrics.length < answer.metrics.total || this.timings.length < answer.timings.total;
  }

  column(name: string): { steps: number[]; values: number[] } | null {
    for (const table of [this.metrics, this.timings]) {
      const values = table.columns.get(name);
      if (values !== undefined) return { steps: table.steps, values };
    }
    return null;
  }

  names(): string[] {
    return [...this.metrics.columns.keys(), ...this.timings.columns.keys()];
  }
}
