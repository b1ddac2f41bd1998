// A process that keeps one core busy when it is told to: what others on a machine do to a measurement.
import { spawn, type ChildProcess } from 'node:child_process';

/** Until the system's scheduler has both on its cores. */
const SETTLE_MS = 200;

export class Neighbour {
  readonly #child: ChildProcess;

  /** Asleep at first. */
  constructor() {
    this.#child = spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' });
    this.#child.on('error', () => {});
    this.#child.kill('SIGSTOP');
  }

  async busy<T>(what: () => Promise<T>): Promise<T> {
    this.#child.kill('SIGCONT');
    try {
      await new Promise((done) => setTimeout(done, SETTLE_MS));
      return await what();
    } finally {
      this.#child.kill('SIGSTOP');
    }
  }

  end(): void {
    this.#child.kill('SIGKILL');
  }
}
