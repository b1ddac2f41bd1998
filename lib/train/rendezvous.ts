// Where the processes of a run find each other: rank 0 listens, all others keep a connection to it. Small values are
// exchanged over it, and who ends without a goodbye is known by it within moments.
import { lookup } from 'node:dns/promises';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { hostname } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import { abortedError, MiniGptError } from '../errors.js';
import { Wire, type Member, type Message } from './wire.js';

export interface MeetOptions {
  rank: number;
  size: number;
  /** Where rank 0 listens. */
  address: string;
  port: number;
  /** Must be the same on all: the run's own word, and the program's version. */
  run: string;
  version: string;
  /** Milliseconds that the others may take to come. */
  timeout: number;
  signal?: AbortSignal | undefined;
  /** Told once what is waited for, where that takes longer than a moment. */
  onWait?: ((what: string) => void) | undefined;
}

/** Milliseconds after which waiting is told, and between attempts to connect. */
const patience = 3000;
const pause = 200;

const isLoopback = (address: string): boolean => /^(localhost|127\.\d+\.\d+\.\d+|::1)$/i.test(address);
const plain = (address: string | undefined): string => (address ?? '').replace(/^::ffff:/i, '');
export const nameOf = (member: Member): string => `rank ${member.rank} (process ${member.pid} on ${member.host})`;

/** The connections of a process that has met all others. */
export class Rendezvous {
  /** Why the group can do no more; set once. */
  failure: MiniGptError | undefined;
  /** Rejects with `failure`. */
  readonly failed: Promise<never>;
  /** Ranks that have said goodbye, and after how many sums. */
  readonly departures = new Map<number, number>();
  onLeft: (rank: number, sums: number) => void = () => {};

  #reject!: (error: MiniGptError) => void;
  #left = false;
  #shares = new Map<string, { values: (Uint8Array | undefined)[]; resolve?: () => void }>();
  #allLeft: () => void = () => {};

  /** `wires`: on rank 0 to everybody, on others to rank 0. `address`: what the others reach this process at. */
  constructor(
    readonly rank: number,
    readonly members: Member[],
    readonly address: string,
    private readonly wires: Map<number, Wire>,
  ) {
    this.failed = new Promise<never>((_, reject) => (this.#reject = reject));
    this.failed.catch(() => {});
    for (const [peer, wire] of wires) {
      wire.onMessage = (message) => this.#receive(message, peer);
      wire.onClose = (problem) => this.#lost(peer, problem);
      if (wire.socket.destroyed) queueMicrotask(() => this.#lost(peer));
    }
    this.#hold(false);
  }

  /** The values that all processes give under this key, in the order of ranks. Errors: ERR_COLLECTIVE. */
  async exchange(key: string, value: Uint8Array): Promise<Uint8Array[]> {
    const share = this.#share(key);
    const complete = new Promise<void>((resolve) => (share.resolve = resolve));
    this.#hold(true);
    this.#tell({ kind: 'share', rank: this.rank, key, value: Buffer.from(value).toString('base64') });
    this.#put(key, this.rank, value);
    try {
      await Promise.race([complete, this.failed]);
    } finally {
      this.#hold(false);
    }
    this.#shares.delete(key);
    return share.values as Uint8Array[];
  }

  /** Ends the group on this process; the others learn of it by leave() or by themselves. */
  fail(error: MiniGptError): void {
    if (this.failure || this.#left) return;
    this.failure = error;
    this.#reject(error);
  }

  /** Says goodbye, and waits up to `linger` ms until all others have: what they still receive must not be cut off. */
  async leave(sums: number, failure: string | undefined, linger: number): Promise<void> {
    if (this.#left) return;
    this.#left = true;
    this.#hold(true);
    this.departures.set(this.rank, sums);
    this.#tell({ kind: 'left', rank: this.rank, sums, ...(failure === undefined ? {} : { failure }) });
    if (this.failure || failure !== undefined) return;
    const timer = new AbortController();
    const all = new Promise<void>((resolve) => (this.#allLeft = resolve));
    this.#checkAllLeft();
    await Promise.race([all, wait(linger, undefined, { signal: timer.signal }).catch(() => {})]);
    timer.abort();
  }

  /** Closes the connections. */
  close(): void {
    for (const wire of this.wires.values()) {
      wire.end();
      wire.socket.unref(); // a peer that hangs shall not keep this process
    }
  }

  /** Whether open connections keep the process alive: only while something is waited for. */
  #hold(on: boolean): void {
    for (const { socket } of this.wires.values()) {
      if (on) socket.ref();
      else socket.unref();
    }
  }

  #tell(message: Message, except?: number): void {
    for (const [peer, wire] of this.wires) if (peer !== except) wire.send(message);
  }

  #receive(message: Message, from: number): void {
    // rank 0 passes on what everybody says; nobody speaks for another but rank 0
    if (this.rank === 0) {
      if (!('rank' in message) || message.rank !== from || message.kind === 'died') {
        this.wires.get(from)!.socket.destroy();
        return;
      }
      this.#tell(message, from);
    }
    switch (message.kind) {
      case 'share':
        return this.#put(message.key, message.rank, Buffer.from(message.value, 'base64'));
      case 'left': {
        this.departures.set(message.rank, message.sums);
        if (message.failure !== undefined) this.#failBecause(message.rank, `gave up: ${message.failure}`);
        else this.onLeft(message.rank, message.sums);
        return this.#checkAllLeft();
      }
      case 'died':
        return this.#died(message.rank);
      case 'hello':
      case 'welcome':
      case 'refused':
        this.#failBecause(
          from,
          `said "${message.kind}" in the middle of the run, which no process of this version does`,
        );
    }
  }

  #lost(peer: number, problem?: string): void {
    if (this.departures.has(peer)) {
      if (peer === 0) this.#allLeft(); // nobody is left to tell of the others
      return;
    }
    if (this.rank === 0) this.#tell({ kind: 'died', rank: peer }, peer);
    this.#died(peer, problem);
  }

  #died(rank: number, problem?: string): void {
    this.departures.set(rank, 0);
    this.#failBecause(rank, `ended without a goodbye${problem === undefined ? '' : ` (${problem})`}`);
    this.#checkAllLeft();
  }

  #failBecause(rank: number, what: string): void {
    const member = this.members[rank];
    this.fail(new MiniGptError('ERR_COLLECTIVE', `${member ? nameOf(member) : `rank ${rank}`} ${what}`));
  }

  #checkAllLeft(): void {
    if (this.departures.size === this.members.length) this.#allLeft();
  }

  #share(key: string) {
    let share = this.#shares.get(key);
    if (!share) this.#shares.set(key, (share = { values: new Array<Uint8Array | undefined>(this.members.length) }));
    return share;
  }

  #put(key: string, rank: number, value: Uint8Array): void {
    const share = this.#share(key);
    share.values[rank] = value;
    if (this.members.every(({ rank: each }) => share.values[each] !== undefined)) share.resolve?.();
  }
}

/**
 * Waits until all processes of the run have met. Errors: ERR_COLLECTIVE (who did not come, or was refused, and why),
 * ERR_ABORTED.
 */
export function meet(options: MeetOptions): Promise<Rendezvous> {
  return options.rank === 0 ? gather(options) : reach(options);
}

const self = (rank: number): Member => ({ rank, host: hostname(), pid: process.pid });
const seconds = (milliseconds: number): string => `${Math.round(milliseconds / 100) / 10} s`;

/** Why a newcomer cannot be of this run, or undefined. */
function objection(
  hello: Message & { kind: 'hello' },
  options: MeetOptions,
  taken: Member | undefined,
): string | undefined {
  const { rank, size, run, version } = hello;
  if (version !== options.version) return `this run is of minigpt4 ${options.version}, rank ${rank} of ${version}`;
  if (run !== options.run) {
    const found = `rank 0 is of run "${options.run}", rank ${rank} of "${run}"`;
    return `another run uses this port: ${found}; give one of them another MASTER_PORT`;
  }
  if (size !== options.size) return `WORLD_SIZE is ${options.size} on rank 0 and ${size} on rank ${rank}`;
  if (rank < 1 || rank >= size) return `expected RANK from 1 to ${size - 1}, found ${rank}`;
  if (taken) return `RANK ${rank} was given twice: ${nameOf(taken)} has it already`;
  return undefined;
}

function gather(options: MeetOptions): Promise<Rendezvous> {
  const { size, address, port, timeout, signal, onWait } = options;
  const place = `${address}:${port}`;
  const wires = new Map<number, Wire>();
  const members = new Map([[0, self(0)]]);
  const visitors = new Set<Socket>();
  let lastRefusal = '';
  return new Promise((resolve, reject) => {
    const server: Server = createServer((socket) => {
      const wire = new Wire(socket);
      visitors.add(socket);
      wire.onClose = () => visitors.delete(socket);
      wire.onMessage = (message) => {
        if (message.kind !== 'hello') return void socket.destroy();
        const { rank, host, pid } = message;
        const reason = objection(message, options, members.get(rank));
        if (reason !== undefined) {
          lastRefusal = `; refused: ${reason}`;
          wire.send({ kind: 'refused', reason });
          return wire.end();
        }
        members.set(rank, { rank, host, pid });
        wires.set(rank, wire);
        wire.onClose = () => {
          // it may come again: the time limit is what ends this
          members.delete(rank);
          wires.delete(rank);
          visitors.delete(socket);
        };
        if (wires.size === size - 1) welcome();
      };
    });
    const waiting = () => {
      const missing = Array.from({ length: size }, (_, rank) => rank).filter((rank) => !members.has(rank));
      return `${missing.length} of ${size} processes at ${place} (rank ${missing.join(', ')})${lastRefusal}`;
    };
    const stop = () => {
      clearTimeout(limit);
      clearTimeout(notice);
      signal?.removeEventListener('abort', abort);
      server.close();
    };
    const fail = (error: MiniGptError) => {
      stop();
      for (const wire of wires.values()) wire.send({ kind: 'refused', reason: error.message });
      for (const socket of visitors) socket.destroySoon();
      reject(error);
    };
    const abort = () => fail(abortedError(signal));
    const limit = setTimeout(
      () => fail(new MiniGptError('ERR_COLLECTIVE', `rank 0 waited ${seconds(timeout)} in vain for ${waiting()}`)),
      timeout,
    );
    const notice = setTimeout(() => onWait?.(`waiting for ${waiting()}`), patience);
    const welcome = () => {
      stop();
      const ends = [...wires].map(([rank, { socket }]) => ({
        rank,
        own: plain(socket.localAddress),
        theirs: plain(socket.remoteAddress),
      }));
      // processes on this machine may have come over the loopback, where those on others cannot reach them
      const own = ends.find((end) => !isLoopback(end.own))?.own ?? ends[0]!.own;
      const all = [...members.values()].sort((a, b) => a.rank - b.rank);
      for (const { rank, theirs } of ends) {
        const lent = isLoopback(theirs) && !isLoopback(own) ? { address: own } : {};
        wires.get(rank)!.send({ kind: 'welcome', members: all, ...lent });
      }
      for (const socket of visitors) if (![...wires.values()].some((wire) => wire.socket === socket)) socket.destroy();
      resolve(new Rendezvous(0, all, own, wires));
    };
    server.on('error', (error: NodeJS.ErrnoException) =>
      fail(
        new MiniGptError(
          'ERR_COLLECTIVE',
          `rank 0 cannot listen at ${place}: ` +
            (error.code === 'EADDRINUSE' ? 'another program does; choose another MASTER_PORT' : error.message),
        ),
      ),
    );
    if (signal?.aborted) return abort();
    signal?.addEventListener('abort', abort, { once: true });
    // a name may stand for an address that this machine does not have itself, so all are listened at, but for the
    // loopback
    server.listen({ port, ...(isLoopback(address) ? { host: loopback(address) } : {}) });
  });
}

const loopback = (address: string): string => (/^localhost$/i.test(address) ? '127.0.0.1' : address);

async function reach(options: MeetOptions): Promise<Rendezvous> {
  const { rank, address, port, timeout, signal, onWait } = options;
  const deadline = Date.now() + timeout;
  const told = Date.now() + patience;
  let waitTold = false;
  for (;;) {
    const left = deadline - Date.now();
    const found = await attempt(options, Math.max(left, 1));
    if (found instanceof Rendezvous) return found;
    if (deadline - Date.now() < pause) {
      throw new MiniGptError(
        'ERR_COLLECTIVE',
        `rank ${rank} waited ${seconds(timeout)} in vain for rank 0 at ${address}:${port}: ${found}`,
      );
    }
    if (!waitTold && Date.now() > told) {
      waitTold = true;
      onWait?.(`rank ${rank} is waiting for rank 0 at ${address}:${port}: ${found}`);
    }
    await wait(pause, undefined, signal ? { signal } : {}).catch(() => {
      throw abortedError(signal);
    });
  }
}

/**
 * One connection to rank 0: the rendezvous, or why there was none (rank 0 may not have come yet). Throws what waiting
 * does not mend.
 */
async function attempt(options: MeetOptions, timeout: number): Promise<Rendezvous | string> {
  const { rank, size, address, port, run, version, signal } = options;
  if (signal?.aborted) throw abortedError(signal);
  let host: string;
  try {
    host = isLoopback(address) ? loopback(address) : (await lookup(address, { order: 'ipv4first' })).address;
  } catch (error) {
    return (error as Error).message;
  }
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host, port });
    const wire = new Wire(socket);
    const limit = setTimeout(() => socket.destroy(new Error('no answer')), timeout);
    const abort = () => socket.destroy();
    signal?.addEventListener('abort', abort, { once: true });
    const settle = () => {
      clearTimeout(limit);
      signal?.removeEventListener('abort', abort);
    };
    socket.on('connect', () => wire.send({ kind: 'hello', program: 'minigpt4', version, run, size, ...self(rank) }));
    wire.onClose = (problem) => {
      settle();
      if (signal?.aborted) reject(abortedError(signal));
      else resolve(problem ?? 'what listens there closed the connection');
    };
    wire.onMessage = (message) => {
      settle();
      wire.onClose = () => {};
      if (message.kind === 'welcome') {
        resolve(
          new Rendezvous(rank, message.members, message.address ?? plain(socket.localAddress), new Map([[0, wire]])),
        );
        return;
      }
      socket.destroy();
      const reason = message.kind === 'refused' ? message.reason : `it said "${message.kind}", expected a welcome`;
      reject(new MiniGptError('ERR_COLLECTIVE', `rank ${rank} was refused by rank 0 at ${address}:${port}: ${reason}`));
    };
  });
}
