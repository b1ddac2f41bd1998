// Everything a run writes about itself: lines or a bar where it was started, metrics.jsonl and TensorBoard's events in its folder.
import { join } from 'node:path';
import { toMiniGptError, type MiniGptError } from '../errors.js';
import { makeFolders } from '../formats/make-folders.js';
import type { RunFacts, TrainEvent } from './events.js';
import { METRICS_FILE, openMetrics } from './metrics.js';
import { openProgress } from './progress.js';
import { openTensorboard } from './tensorboard.js';

export interface LogOptions {
  /** The run's folder; made if it is not there. */
  folder: string;
  /** Whether `stream` is a terminal, which gets a bar. */
  terminal: boolean;
  /** Default: standard error. */
  stream?: NodeJS.WritableStream;
}

export interface RunLog {
  event(event: TrainEvent): void;
  /** Writes what waits and how the run ended. `reason`: why it stopped before its last step. Never rejects. */
  close(reason?: string): Promise<void>;
}

/**
 * Logs from before of a run that was resumed go on after facts.startStep.
 * Errors: the folder or a file in it cannot be opened (ERR_FILE_READ, ERR_FILE_NOT_FOUND). Once open, nothing here ends the run: a log
 * that cannot be written is told of once.
 */
export async function openLog(facts: RunFacts, options: LogOptions): Promise<RunLog> {
  const { folder, terminal, stream = process.stderr } = options;
  const progress = openProgress(stream, terminal);
  const trouble = (what: string) => (error: MiniGptError) =>
    progress.note(`minigpt4: warning: ${what} cannot be written (${error.message}); the training goes on`);
  let step = facts.startStep;
  try {
    await makeFolders(folder);
    const metrics = await openMetrics(facts, folder, trouble(join(folder, METRICS_FILE)));
    const tensorboard = await openTensorboard(
      folder,
      facts.startStep,
      trouble(`TensorBoard's events in ${folder}`),
    ).catch(async (error: Error) => {
      await metrics.close({ kind: 'end', step, state: 'stopped', reason: error.message });
      throw error;
    });
    await progress.start(facts);
    if (metrics.note !== undefined) progress.note(metrics.note);
    return {
      event(event) {
        if (event.kind === 'step') step = event.step;
        metrics.event(event);
        tensorboard.event(event);
        progress.event(event);
      },
      async close(reason) {
        const finished = reason === undefined && step >= facts.steps;
        const lost = await metrics.close({
          kind: 'end',
          step,
          state: finished ? 'finished' : 'stopped',
          ...(reason === undefined ? {} : { reason }),
        });
        const lostRecords = await tensorboard.close();
        progress.close(reason);
        if (lost > 0 || lostRecords > 0)
          progress.note(
            `minigpt4: warning: ${lost} lines of ${METRICS_FILE} and ${lostRecords} TensorBoard records are lost`,
          );
      },
    };
  } catch (error) {
    throw toMiniGptError(error);
  }
}
