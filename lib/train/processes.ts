// Several processes that train together: they meet at rank 0 (rendezvous.ts) and sum through the native collective.
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { addon, packageRoot, type NativeCollective } from '../addon.js';
import { MiniGptError, toMiniGptError } from '../errors.js';
import { alone, type ProcessGroup } from './group.js';
import { placeOf, type Place } from './place.js';
import { meet, nameOf, type Rendezvous } from './rendezvous.js';

export interface JoinOptions {
  /** Milliseconds until all processes must have come (default: 10 minutes). */
  timeout?: number;
  /** Milliseconds that one step of a sum may wait for another process that is alive (default: 30 minutes). */
  sumTimeout?: number;
  /** Milliseconds that close() waits for the others' goodbyes (default: 5 s). */
  linger?: number;
  signal?: AbortSignal;
  /** Told what is waited for, where meeting takes longer than a moment. */
  onWait?: (what: string) => void;
  /** Where the native plug-in lies; default: beside the binary. */
  pluginFolder?: string;
}

/** Milliseconds to learn why a sum broke, before Gloo's own words are the reason. */
const explanationTime = 2000;

/**
 * The group that the environment describes (see placeOf), or a process alone. Errors: ERR_ARGUMENT (the environment),
 * ERR_NO_BACKEND (built without Gloo), ERR_COLLECTIVE (who did not come, or was refused), ERR_ABORTED.
 */
export async function joinGroup(
  env: NodeJS.ProcessEnv = process.env,
  options: JoinOptions = {},
): Promise<ProcessGroup> {
  const place = placeOf(env);
  if (!place) return alone();
  const folder = options.pluginFolder === undefined ? {} : { folder: options.pluginFolder };
  // what is missing is said before anybody is waited for
  addon.openCollective({ rank: place.rank, size: place.size, host: '127.0.0.1', ...folder }).close();
  const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string };
  const timeout = options.timeout ?? 10 * 60_000;
  const rendezvous = await meet({ ...place, version, timeout, signal: options.signal, onWait: options.onWait });
  let native: NativeCollective | undefined;
  try {
    native = addon.openCollective({
      rank: place.rank,
      size: place.size,
      host: interfaceAddress(env['GLOO_SOCKET_IFNAME']) ?? rendezvous.address,
      connectTimeout: timeout,
      sumTimeout: options.sumTimeout ?? 30 * 60_000,
      ...folder,
    });
    const addresses = await rendezvous.exchange('addresses', native.address());
    await Promise.race([native.connect(addresses), rendezvous.failed]);
    // nobody goes on before everybody is connected
    await rendezvous.exchange('connected', new Uint8Array(0));
    return new ConnectedGroup(place, rendezvous, native, options.linger ?? 5000);
  } catch (error) {
    const reason = toMiniGptError(error);
    await rendezvous.leave(0, reason.message, 0);
    rendezvous.close();
    native?.close();
    throw reason;
  }
}

/** The address of an interface that the user prefers, by the variable that Gloo's other users set. */
function interfaceAddress(name: string | undefined): string | undefined {
  if (!name) return undefined;
  const all = networkInterfaces();
  const found = all[name]?.find(({ address }) => isIP(address) === 4) ?? all[name]?.[0];
  if (!found) {
    const names = Object.keys(all).join(', ');
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `GLOO_SOCKET_IFNAME: there is no interface "${name}" with an address, only ${names}`,
    );
  }
  return found.address;
}

class ConnectedGroup implements ProcessGroup {
  readonly rank: number;
  readonly size: number;
  readonly failed: Promise<never>;
  /** Sums that were begun, and those that are done. */
  #begun = 0;
  #done = 0;
  #closed: Promise<void> | undefined;
  #onParentGone = () => this.#fail(new MiniGptError('ERR_COLLECTIVE', 'the process that started this one has ended'));

  constructor(
    place: Place,
    private readonly rendezvous: Rendezvous,
    private readonly native: NativeCollective,
    private readonly linger: number,
  ) {
    this.rank = place.rank;
    this.size = place.size;
    this.failed = rendezvous.failed;
    this.failed.catch(() => native.close()); // ends what runs
    rendezvous.onLeft = () => this.#checkLeavers(this.#begun);
    // the launcher keeps a channel open for this alone (launch.ts)
    if (process.connected && process.env['MINIGPT4_RUN']) {
      process.once('disconnect', this.#onParentGone);
      process.channel?.unref();
    }
  }

  sum(values: Float32Array): Promise<Float32Array> {
    return this.#run(() => this.native.sum(values));
  }

  sumNumbers(values: number[]): Promise<number[]> {
    return this.#run(() => this.native.sumNumbers(values));
  }

  close(failure?: Error): Promise<void> {
    return (this.#closed ??= this.#leave(failure));
  }

  async #leave(failure: Error | undefined): Promise<void> {
    process.off('disconnect', this.#onParentGone);
    await this.rendezvous.leave(this.#done, failure?.message, this.linger);
    this.native.close();
    this.rendezvous.close();
  }

  async #run<T>(start: () => Promise<T>): Promise<T> {
    if (this.#closed) throw new MiniGptError('ERR_CLOSED', 'this process has left its group');
    this.#begun++;
    this.#checkLeavers(this.#begun);
    if (this.rendezvous.failure) throw this.rendezvous.failure;
    let sums: T;
    try {
      sums = await start();
    } catch (error) {
      throw await this.#explain(toMiniGptError(error));
    }
    this.#done++;
    return sums;
  }

  /** A rank that has left after fewer sums than are begun here will not take part in the next. */
  #checkLeavers(begun: number): void {
    for (const [rank, sums] of this.rendezvous.departures) {
      if (sums >= begun || rank === this.rank) continue;
      const name = nameOf(this.rendezvous.members[rank]!);
      this.#fail(
        new MiniGptError(
          'ERR_COLLECTIVE',
          `${name} has left after ${sums} sums, this process waits for sum ${sums + 1}`,
        ),
      );
    }
  }

  #fail(error: MiniGptError): void {
    this.rendezvous.fail(error);
  }

  /**
   * The reason of a sum that broke: who has died, where that is known or soon will be; or else what the native side
   * says.
   */
  async #explain(error: MiniGptError): Promise<MiniGptError> {
    if (error.code === 'ERR_COLLECTIVE' && !this.rendezvous.failure) {
      await Promise.race([wait(explanationTime), this.failed]).catch(() => {});
    }
    this.#fail(error);
    return this.rendezvous.failure ?? error;
  }
}
