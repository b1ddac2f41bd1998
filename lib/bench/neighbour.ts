// A process that keeps one core busy when it is told to: what others on a machine do to a measurement.
import { fork, type ChildProcess } from 'node:child_process';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MiniGptError } from '../errors.js';

/** Until the system's scheduler has both on its cores. */
const SETTLE_MS = 200;
const EXTENSION = extname(fileURLToPath(import.meta.url)); // of the sources, or as built

export class Neighbour {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** Idle at first. Error ERR_INTERNAL: the process did not begin. */
  static async start(): Promise<Neighbour> {
    const child = fork(fileURLToPath(new URL(`neighbour-process${EXTENSION}`, import.meta.url)), { stdio: 'ignore' });
    await new Promise<void>((ready, failed) => {
      const fail = (how: string): void =>
        failed(new MiniGptError('ERR_INTERNAL', `the process that keeps a core busy ${how}`));
      child.once('message', () => ready());
      child.on('error', (error) => fail(`could not be started: ${error.message}`));
      child.once('exit', (code, signal) => fail(`ended by ${signal ?? `exit code ${code}`}`));
    });
    return new Neighbour(child);
  }

  /** Error ERR_INTERNAL: the process ended, so that nothing kept the core busy. */
  async busy<T>(what: () => Promise<T>): Promise<T> {
    await this.#want(true);
    try {
      await new Promise((done) => setTimeout(done, SETTLE_MS));
      return await what();
    } finally {
      await this.#want(false);
    }
  }

  get pid(): number {
    return this.#child.pid!;
  }

  end(): void {
    this.#child.kill('SIGKILL');
  }

  #want(busy: boolean): Promise<void> {
    return new Promise((sent, failed) => {
      this.#child.send(busy, (error) => {
        if (!error) return sent();
        const how = 'the process that keeps a core busy ended';
        failed(new MiniGptError('ERR_INTERNAL', how, { cause: error }));
      });
    });
  }
}
