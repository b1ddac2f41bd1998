// What the commands have to do with the terminal: streams that close, Ctrl-C, notices, model text that could hold control characters.
import { basename } from 'node:path';
import type { MiniGPT4 } from '../model.js';
import { exitCodes } from './program.js';

/**
 * A reader that goes away (`| head`) ends the process in peace; an output that cannot be written (a full disk) ends it as a failure. What
 * cannot be told on stderr is not told: the work goes on, also when the terminal has gone.
 */
export function endWhenReaderLeaves(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    say(`minigpt4: standard output cannot be written: ${error.message}`);
    process.exit(exitCodes.failed);
  });
  process.stderr.on('error', () => {});
}

/** timeout and shells tell a process and its group, so that one request to end comes twice. */
const repeatMilliseconds = 500;

/**
 * Aborted by the first Ctrl-C, SIGTERM, or SIGHUP (its terminal has gone). Any of them within half a second is the same request again; one
 * after that, of any kind, ends the process as usual.
 */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  const restore = () => {
    for (const name of names) process.off(name, heard);
  };
  let first: number | undefined;
  function heard(name: NodeJS.Signals): void {
    if (first === undefined) {
      first = performance.now();
      setTimeout(restore, repeatMilliseconds).unref();
      controller.abort();
    } else if (performance.now() - first >= repeatMilliseconds) {
      restore(); // the timer's turn has not come
      process.kill(process.pid, name);
    }
  }
  for (const name of names) process.on(name, heard);
  return controller.signal;
}

/** Lines on standard error, without control characters: names and pieces of files that anybody may have made are told too. */
export function say(text: string): void {
  process.stderr.write(`${text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, '\ufffd')}\n`);
}

/** Text of a model for stdout; on a terminal without control characters, which could move the cursor or worse. */
export function writeText(text: string): void {
  process.stdout.write(process.stdout.isTTY ? text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, '\ufffd') : text);
}

/** Tells what the embedded model is, so that nobody takes it for the real one. */
export function tellMiniature(model: MiniGPT4): void {
  if (!model.info.embedded) return;
  say(
    'This is the embedded miniature: it knows only simple scenes of pictograms. ' +
      'For photographs convert the full MiniGPT-4 and give it with --model (see README.md).',
  );
}

/** Shows on a terminal how far loading is, once it takes longer than a moment. */
export function loadingProgress(file: string | undefined): { onProgress?: (fraction: number) => void; done(): void } {
  if (!process.stderr.isTTY) return { done() {} };
  const start = Date.now();
  let shown = false;
  return {
    onProgress(fraction) {
      if (Date.now() - start < 500) return;
      shown = true;
      process.stderr.write(
        `\r\x1b[Kloading ${file === undefined ? 'the model' : basename(file)} ${Math.floor(fraction * 100)} %`,
      );
    },
    done() {
      if (shown) process.stderr.write('\r\x1b[K');
    },
  };
}
