// A process that keeps one core busy when it is told to: what others on a machine do to a measurement.
import { ScriptProcess } from './script-process.js';

const START_MS = 30_000;
/** Until the system's scheduler has both on its cores. */
const SETTLE_MS = 200;

export class Neighbour {
  readonly #process = new ScriptProcess('neighbour-process', 'the process that keeps a core busy');

  /** Idle at first. Error ERR_INTERNAL: the process did not begin. */
  static async start(): Promise<Neighbour> {
    const neighbour = new Neighbour();
    await neighbour.#process.answer(START_MS);
    return neighbour;
  }

  /** Error ERR_INTERNAL: the process ended, so that nothing kept the core busy. */
  async busy<T>(what: () => Promise<T>): Promise<T> {
    await this.#process.send(true);
    try {
      await new Promise((done) => setTimeout(done, SETTLE_MS));
      return await what();
    } finally {
      await this.#process.send(false);
    }
  }

  get pid(): number {
    return this.#process.pid!;
  }

  end(): void {
    this.#process.kill();
  }
}
