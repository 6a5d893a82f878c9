/** Confirmations before anything large, external or final, and what the page can and cannot do. */

import { describe, expect, it, vi } from 'vitest';
import { Agent } from '../../../extension/agent/agent.ts';
import { ChatView } from '../../../extension/chat/chat.ts';
import { noticeOf, openLink } from '../../../extension/chat/pages.ts';
import { ChatSession } from '../../../extension/chat/session.ts';
import { ChatStore } from '../../../extension/chat/store.ts';
import type { EngineClient } from '../../../extension/client/client.ts';
import { ContextGatherer } from '../../../extension/context/gather.ts';
import { MentionSuggester } from '../../../extension/context/mentions.ts';
import { ContextTracker } from '../../../extension/context/tracker.ts';
import { type ToPage, toPage } from '../../../extension/messages.ts';
import { FirstRun } from '../../../extension/models/choose.ts';
import { ModelManager } from '../../../extension/models/manager.ts';
import { Thinking } from '../../../extension/thinking.ts';
import { clientOf, hostOf, log, logged, MemoryMemento, untilState } from './support.ts';
import { EventEmitter, Position, Selection, settings, Uri, user, window } from './vscode.ts';

const absent = { FAKE_MODEL_STATE: 'absent' };
const until = (check: () => boolean) => vi.waitFor(() => expect(check()).toBe(true), { timeout: 10_000 });

async function managerOf(client: EngineClient, searchWith = async (_: string) => {}): Promise<ModelManager> {
  const host = hostOf(client);
  await host.client();
  return new ModelManager(host, searchWith);
}

describe('the model manager', () => {
  it('downloads only after the size was confirmed, then uses the model', async () => {
    const client = clientOf(absent);
    const manager = await managerOf(client);
    user.picks = { label: 'Model small' };
    await manager.open();
    await until(() => user.asked.length === 1);
    expect(user.asked[0]).toMatchObject({ message: 'Download Model small (100 MB)?', choices: ['Download'] });
    expect(user.asked[0]?.detail).toContain('Licence: Apache-2.0');
    expect((await client.models())[0]?.state).toBe('absent');
    user.wants.push('Download');
    await manager.open();
    await untilState(client, 'ready');
    await until(() => settings.get('hearth.chat.model') === 'small');
    expect(user.progress.filter((line) => line.startsWith('Downloading Model small'))).toHaveLength(4);
  });

  it('lists the recommended models first, preselected if no model is in use', async () => {
    const client = clientOf(absent);
    const entry = (await client.models())[0];
    if (entry === undefined) throw new Error('the scripted engine lists models');
    const named = (name: string, over: object) => ({ ...entry, id: name, name, recommendedFor: [], ...over });
    client.models = async () => [
      named('large', { downloadBytes: 65e9, fit: { verdict: 'slow', reason: '' } }),
      named('medium', { downloadBytes: 5e9, fit: { verdict: 'good', reason: '' } }),
      named('advised', { downloadBytes: 2e9, recommendedFor: ['chat'], fit: { verdict: 'good', reason: '' } }),
      named('small', { downloadBytes: 1e9, fit: { verdict: 'good', reason: '' } }),
    ];
    await (await managerOf(client)).open();
    const names = user.offered.map((label) => label.replace(/^\$\([\w-]+\) /, ''));
    expect(names.slice(0, 5)).toEqual(['To download', 'advised', 'small', 'medium', 'large']);
    expect(user.active).toEqual(['$(cloud) advised']);
  });

  it('explains a model on a read-only page', async () => {
    const client = clientOf();
    client.inspect = async (models) => `About ${models.join()}.`;
    const manager = await managerOf(client);
    user.picks = { label: 'Model small', button: 'Explain: architecture, memory, fit on this computer' };
    await manager.open();
    await until(() => user.shown.length === 1);
    const [page] = user.shown as { uri: Uri; text: string }[];
    // Only a provider writes what has this scheme.
    expect([page?.text, page?.uri.toString()]).toEqual(['About small.', 'hearth-models:/small']);
  });

  it('passes an embedding model to the index and keeps the chat model', async () => {
    const client = clientOf({ FAKE_EMBEDDING: 'vectors' });
    const chosen: string[] = [];
    const manager = await managerOf(client, async (model) => void chosen.push(model));
    user.picks = { label: 'Model vectors' };
    user.wants.push('Download');
    await manager.open();
    await until(() => chosen.length === 1);
    expect([chosen, settings.get('hearth.chat.model')]).toEqual([['vectors'], undefined]);
    await until(() => user.asked.length === 2);
    expect(user.asked[1]?.message).toContain('embedding search');
  });

  it('stops a download when the user cancels, without a message', async () => {
    const client = clientOf({ ...absent, FAKE_PULL_MS: '20' });
    const manager = await managerOf(client);
    user.picks = { label: 'Model small' };
    user.wants.push('Download');
    user.cancels = true;
    await manager.open();
    await until(() => user.progress.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect((await client.models())[0]?.state).toBe('absent');
    expect(user.asked).toHaveLength(1);
  });

  it('downloads with one click on a button that shows the size, and keeps the choice automatic', async () => {
    const client = clientOf(absent);
    const [entry] = await client.models();
    if (entry === undefined) throw new Error('the scripted engine lists models');
    await (await managerOf(client)).download({ entry });
    expect(client.warmModel?.id).toBe('small');
    expect([user.asked, settings.get('hearth.chat.model')]).toEqual([[], undefined]);
  });

  it('changes the setting only once the model is loaded, and goes back to the one before', async () => {
    const client = clientOf({ FAKE_BROKEN: '1' });
    const manager = await managerOf(client);
    user.picks = { label: 'Model small' };
    await manager.open();
    await until(() => settings.get('hearth.chat.model') === 'small');
    user.picks = { label: 'Model broken' };
    await manager.open();
    await until(() => user.asked.length === 1);
    expect(user.asked[0]?.message).toContain('The model does not fit.');
    expect(settings.get('hearth.chat.model')).toBe('small');
    await untilState(client, 'ready');
    expect(client.warmModel?.id).toBe('small');
  });

  it('lists the models of a repository with size and fit, downloads the chosen one with the stored token, and uses it', async () => {
    const tokens = new Map([['https://huggingface.co', 'hf_right']]);
    const client = clientOf({}, async (url) => tokens.get(url));
    const manager = await managerOf(client);
    user.picks = { label: 'A model on Hugging Face' };
    user.types.push('maker/Tiny-GGUF');
    user.wants.push('Download');
    await manager.open();
    await until(() => user.boxes.length === 1);
    user.picks = { label: 'Q4_K_M' };
    await until(() => settings.get('hearth.chat.model') === 'maker/Tiny-GGUF:Q4_K_M');
    expect(user.asked[0]).toMatchObject({ message: 'Download maker/Tiny-GGUF:Q4_K_M (2.0 GB)?' });
    expect(user.asked[0]?.detail).toBe('Fits.\nLicence: not stated');
    expect(client.warmModel?.id).toBe('maker/Tiny-GGUF:Q4_K_M');
  });

  it('says what to do about a gated repository', async () => {
    const manager = await managerOf(clientOf());
    user.picks = { label: 'A model on Hugging Face' };
    user.types.push('maker/Tiny-GGUF');
    await manager.open();
    await until(() => user.asked.length === 1);
    expect(user.asked[0]?.message).toContain('gated');
    expect(settings.get('hearth.chat.model')).toBeUndefined();
  });

  it('removes a model only after confirmation', async () => {
    const client = clientOf();
    const manager = await managerOf(client);
    user.picks = { label: 'Model small', button: 'Remove from this computer' };
    await manager.open();
    await until(() => user.asked.length === 1);
    expect(user.asked[0]?.message).toBe('Remove Model small (100 MB) from this computer?');
    expect((await client.models())[0]?.state).toBe('present');
    user.wants.push('Remove');
    await manager.open();
    await vi.waitFor(async () => expect((await client.models())[0]?.state).toBe('absent'));
  });

  it("verifies a model's digest and shows the result", async () => {
    const manager = await managerOf(clientOf());
    user.picks = { label: 'Model small', button: 'Verify digest' };
    await manager.open();
    await until(() => user.asked.length === 1);
    expect(user.asked[0]?.message).toBe('Model small is intact: its digest matches the published one.');
  });

  it('uses a downloaded model, and the automatic choice', async () => {
    const client = clientOf();
    const manager = await managerOf(client);
    user.picks = { label: 'Model small' };
    await manager.open();
    await untilState(client, 'ready');
    await until(() => settings.get('hearth.chat.model') === 'small');
    user.picks = { label: 'Automatic' };
    await manager.open();
    await until(() => settings.get('hearth.chat.model') === '');
    await client.ready();
  });
});

describe('the first run', () => {
  const firstRunOf = async (client: EngineClient, memory = new MemoryMemento()) => {
    const host = hostOf(client);
    await host.client();
    return new FirstRun(host, new ModelManager(host, async () => {}), memory, log);
  };

  it('loads a downloaded model in the background without asking', async () => {
    const client = clientOf();
    (await firstRunOf(client)).warmUp();
    await untilState(client, 'ready');
    expect(user.asked).toEqual([]);
  });

  it('offers the download once, with its size, and downloads on one click', async () => {
    const client = clientOf(absent);
    const firstRun = await firstRunOf(client);
    user.wants.push('Download (100 MB)');
    firstRun.warmUp();
    firstRun.warmUp();
    await untilState(client, 'ready');
    expect(user.asked.map(({ choices }) => choices)).toEqual([
      ['Download (100 MB)', 'Other models', "Don't ask again"],
    ]);
  });

  it('waits for the download and the load if a key is typed meanwhile', async () => {
    const client = clientOf(absent);
    const firstRun = await firstRunOf(client);
    await firstRun.warmUp();
    expect(client.view.state.kind).toBe('no-model');
    const [entry] = await client.models();
    if (entry === undefined) throw new Error('the scripted engine lists models');
    const typedMeanwhile: Promise<string | undefined>[] = [];
    const typing = client.onView(({ state }) => {
      if (state.kind === 'ready') return;
      typedMeanwhile.push(firstRun.warmUp().then(() => client.completionModel?.id));
    });
    const host = hostOf(client);
    await host.client();
    await new ModelManager(host, async () => {}).download({ entry });
    typing.dispose();
    const completing = await Promise.all(typedMeanwhile);
    expect(completing.length).toBeGreaterThan(2);
    expect(new Set(completing)).toEqual(new Set(['small']));
    expect(user.asked).toHaveLength(1);
  });

  it('offers the pair in one, and completes with its second model once it is there', async () => {
    const client = clientOf({ ...absent, FAKE_CODER: 'absent', FAKE_PARTNER: 'coder' });
    user.wants.push('Download (200 MB)');
    (await firstRunOf(client)).warmUp();
    await until(() => client.completionModel?.id === 'coder' && client.warmModel?.id === 'small');
    expect(user.asked[0]?.message).toContain(
      'Model small and, for completions, Model coder (200 MB) suits this computer',
    );
    expect(client.warmModel?.id).toBe('small');
    expect(user.asked).toHaveLength(1);
  });

  it('offers a failed download again, in the message and in the view', async () => {
    const client = clientOf({ ...absent, FAKE_PULL_FAILURES: '1' });
    const firstRun = await firstRunOf(client);
    const notices: unknown[] = [];
    client.onView((view) => notices.push(noticeOf(view)));
    user.wants.push('Download (100 MB)', 'Retry');
    firstRun.warmUp();
    await untilState(client, 'ready');
    expect(user.asked[1]).toMatchObject({ message: 'There is no network.', choices: ['Retry'] });
    expect(notices).toContainEqual({
      kind: 'no-model',
      text: 'There is no network.',
      failed: true,
      offers: [expect.objectContaining({ id: 'small' })],
    });
    expect(notices.at(-1)).toEqual({ kind: 'none' });
  });

  it('does not download or ask again if the user closes the question', async () => {
    const client = clientOf(absent);
    const firstRun = await firstRunOf(client);
    firstRun.warmUp();
    await until(() => user.asked.length === 1);
    firstRun.warmUp();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect([user.asked.length, (await client.models())[0]?.state]).toEqual([1, 'absent']);
  });

  it('remembers a declined download', async () => {
    const memory = new MemoryMemento();
    user.wants.push("Don't ask again");
    (await firstRunOf(clientOf(absent), memory)).warmUp();
    await until(() => user.asked.length === 1);
    const client = clientOf(absent);
    (await firstRunOf(client, memory)).warmUp();
    await untilState(client, 'no-model');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(user.asked).toHaveLength(1);
  });
});

describe('the thinking command', () => {
  const thinkingOf = async (model: string) => {
    settings.set('hearth.chat.model', model);
    const client = clientOf();
    const host = hostOf(client);
    await host.client();
    return { client, thinking: new Thinking(new MemoryMemento(), host) };
  };

  it('says that a model cannot think, and offers another', async () => {
    const { thinking } = await thinkingOf('small');
    user.wants.push('Choose a model');
    await thinking.pick();
    expect(user.asked[0]?.message).toMatch(/^Model small was not trained to think/);
    expect(user.commands).toEqual(['hearth.chooseModel']);
  });

  it('toggles a model with two modes', async () => {
    // A path is passed on unchanged; the scripted engine has a thinking model of that name.
    const { client, thinking } = await thinkingOf('/models/thinker');
    await thinking.pick();
    const card = await client.ready();
    expect(thinking.mode(card)).toBe('on');
    await thinking.pick();
    expect(thinking.mode(card)).toBe('off');
  });
});

describe('a link that a model wrote', () => {
  it('is opened only after the user saw all of it and confirmed', async () => {
    const href = 'https://evil.example/?secret=everything';
    await openLink(href);
    expect(user.asked[0]).toMatchObject({ message: 'Open evil.example in the browser?' });
    expect(user.asked[0]?.detail).toContain(href);
    expect(user.opened).toEqual([]);
    user.wants.push('Open');
    await openLink(href);
    expect(user.opened).toEqual([href]);
  });

  it('is ignored if it is not http or https', async () => {
    user.wants.push('Open');
    for (const href of ['command:x', 'file:///etc/passwd', 'javascript:1', 'vscode://x']) await openLink(href);
    expect([user.asked, user.opened]).toEqual([[], []]);
  });
});

describe('the chat view', () => {
  async function open(memory = new MemoryMemento()) {
    const client = clientOf();
    const engine = hostOf(client);
    await engine.client();
    const thinking = new Thinking(new MemoryMemento(), engine);
    const store = new ChatStore('/nonexistent/hearth', log);
    const files = { reread: () => Promise.resolve(undefined), find: () => Promise.resolve(undefined) };
    const session = new ChatSession(engine, store, thinking, log, files);
    const tracker = new ContextTracker();
    const gatherer = new ContextGatherer(engine, tracker, undefined);
    const suggester = new MentionSuggester(undefined);
    const extensionUri = Uri.parse('file:///ext') as never;
    const applied: string[] = [];
    const proposals = { show: (code: string) => Promise.resolve(applied.push(code)) } as never;
    const models = new ModelManager(engine, async () => {});
    const acted: unknown[][] = [];
    const agent = new Agent(undefined as never, undefined as never);
    const changes = {
      onChange: new EventEmitter<string>().event,
      viewOf: () => Promise.resolve(undefined),
      act: (...args: unknown[]) => Promise.resolve(acted.push(args)),
    } as never;
    const view = new ChatView({
      extensionUri,
      engine,
      session,
      tracker,
      gatherer,
      suggester,
      proposals,
      changes,
      agent,
      thinking,
      models,
      log,
      memory,
    });
    const page = pageOf();
    view.pages.attach(page.shown as never);
    return {
      applied,
      acted,
      client,
      session,
      view,
      ...page,
    };
  }

  /** As VS Code gives it for a view or an editor tab. */
  function pageOf() {
    const posted: ToPage[] = [];
    const received = new EventEmitter<unknown>();
    const closed = new EventEmitter<void>();
    const moved = new EventEmitter<void>();
    const webview = {
      options: {},
      html: '',
      cspSource: 'https://r',
      asWebviewUri: (uri: Uri) => uri,
      onDidReceiveMessage: received.event,
      postMessage: (message: ToPage) => posted.push(message),
    };
    const events = {
      onDidDispose: closed.event,
      onDidChangeVisibility: moved.event,
      onDidChangeViewState: moved.event,
    };
    const revealed = vi.fn();
    return {
      posted,
      webview,
      revealed,
      shown: { webview, visible: true, ...events },
      tab: { webview, visible: true, reveal: revealed, ...events },
      say: (message: unknown) => received.fire(message),
      close: () => closed.fire(),
    };
  }

  it('gives the page access to its own folder only', async () => {
    const { webview } = await open();
    expect(webview.options).toMatchObject({ enableScripts: true });
    expect(String(Reflect.get(webview.options, 'localResourceRoots'))).toBe('file:///ext/dist');
    expect(webview.html).toContain("default-src 'none'");
  });

  it('starts no download that the page does not offer', async () => {
    const { client, say } = await open();
    const pulled = vi.spyOn(client, 'pull');
    for (const model of ['gpt-oss-120b', 'smollm2-135m-instruct', 'nonsense']) say({ type: 'download', model });
    await new Promise((done) => setTimeout(done, 20));
    expect(pulled).not.toHaveBeenCalled();
  });

  it('shows everything when the page is ready, loads the model, and speaks the protocol', async () => {
    const { client, posted, say } = await open();
    say({ type: 'ready' });
    await untilState(client, 'ready');
    expect(posted.slice(0, 4).map(({ type }) => type)).toEqual(['conversation', 'notice', 'controls', 'context']);
    expect(posted.filter((message) => !toPage.safeParse(message).success)).toEqual([]);
    expect(posted.findLast(({ type }) => type === 'controls')).toMatchObject({ controls: { model: 'Model small' } });
  });

  it('restores the draft in the next page and the next window', async () => {
    const memory = new MemoryMemento();
    const draft = { text: 'half a thought', start: 5, end: 6 };
    const { say } = await open(memory);
    say({ type: 'draft', draft });
    const next = await open(memory);
    next.say({ type: 'ready' });
    expect(next.posted).toContainEqual({ type: 'draft', draft });
  });

  it('focuses the box once the page listens', async () => {
    const { view, posted, say } = await open();
    await view.pages.reveal();
    expect(user.commands).toContain('hearth.chat.focus');
    say({ type: 'ready' });
    expect(posted.at(-1)).toEqual({ type: 'focus' });
  });

  it('shows the same in its view and in an editor tab, with one draft', async () => {
    const { view, session, posted, say } = await open();
    const tab = pageOf();
    view.pages.attachTab(tab.tab as never);
    for (const each of [say, tab.say]) each({ type: 'ready' });
    const draft = { text: 'half a thought', start: 5, end: 6 };
    tab.say({ type: 'draft', draft });
    expect(posted).toContainEqual({ type: 'mirror', draft });
    expect(tab.posted).not.toContainEqual({ type: 'mirror', draft });
    tab.say({ type: 'send', text: 'Hello?' });
    await until(() => session.turns[0]?.outcome.kind === 'done');
    for (const page of [posted, tab.posted]) expect(page.map(({ type }) => type)).toContain('end');
  });

  it('answers suggestions in the page that asked', async () => {
    const { view, posted } = await open();
    const tab = pageOf();
    view.pages.attachTab(tab.tab as never);
    tab.say({ type: 'suggest', query: '' });
    await until(() => tab.posted.some(({ type }) => type === 'suggestions'));
    expect(posted.map(({ type }) => type)).not.toContain('suggestions');
  });

  it('is revealed in its editor tab while that is open, otherwise in its view', async () => {
    const { view, posted } = await open();
    const tab = pageOf();
    view.pages.attachTab(tab.tab as never);
    await view.pages.reveal();
    expect(tab.revealed).toHaveBeenCalled();
    expect(tab.posted.at(-1)).toEqual({ type: 'focus' });
    expect(user.commands).toEqual([]);
    tab.close();
    await view.pages.reveal();
    expect(user.commands).toEqual(['hearth.chat.focus']);
    expect(posted.at(-1)).toEqual({ type: 'focus' });
  });

  it('drops messages that violate the protocol', async () => {
    const { posted, say } = await open();
    for (const message of [null, 'x', { type: 'evil' }, { type: 'insert', text: 5 }]) say(message);
    expect([posted, user.commands]).toEqual([[], []]);
    expect(logged.filter((line) => line.startsWith('warn The chat page'))).toHaveLength(4);
  });

  it("asks the session with the active editor's context", async () => {
    const { session, say } = await open();
    say({ type: 'send', text: 'Hello?' });
    await until(() => session.turns[0]?.outcome.kind === 'done');
    expect(session.turns[0]).toMatchObject({ question: 'Hello?', answer: 'One two three.' });
  });

  it('tells the page nothing about the engine when a request begins or ends', async () => {
    const { client, posted, say } = await open();
    say({ type: 'ready' });
    await untilState(client, 'ready');
    posted.length = 0;
    say({ type: 'send', text: 'Hello?' });
    await until(() => posted.some(({ type }) => type === 'end'));
    expect(client.view.last?.generatedTokens).toBeGreaterThan(0);
    expect(posted.map(({ type }) => type)).not.toContain('notice');
    expect(posted.map(({ type }) => type)).not.toContain('controls');
  });

  it('queues questions in order, each with the selection at the time', async () => {
    const lines = (first: number, last: number) => new Selection(new Position(first, 0), new Position(last, 1));
    const document = { uri: Uri.parse('file:///a.ts'), languageId: 'typescript', getText: () => 'a\nb\nc\nd' };
    const editor = { document, selection: lines(0, 1), visibleRanges: [] };
    window.activeTextEditor = editor;
    const { session, say } = await open();
    say({ type: 'send', text: 'SLOW' });
    editor.selection = lines(2, 3);
    say({ type: 'send', text: 'second' });
    editor.selection = lines(0, 0);
    await until(() => session.turns.length === 2);
    const asked = () => session.turns.map(({ question, chips, outcome }) => [question, chips[0]?.label, outcome.kind]);
    expect(asked()).toEqual([
      ['SLOW', 'a.ts:1–2', 'running'],
      ['second', 'a.ts:3–4', 'queued'],
    ]);
    const id = session.turns[1]?.id;
    say({ type: 'resend', turn: id, text: 'zweite' });
    await until(() => session.turns[1]?.question === 'zweite');
    expect(asked()[1]).toEqual(['zweite', 'a.ts:3–4', 'queued']);
    await until(() => session.turns[1]?.outcome.kind === 'done');
    expect(session.turns[1]?.answer).toBe('One two three.');
  });

  it('inserts code at the cursor and replaces the selection', async () => {
    const replaced: string[] = [];
    const selection = new Selection(new Position(0, 0), new Position(0, 1));
    const edit = { replace: (_: unknown, text: string) => replaced.push(text) };
    window.activeTextEditor = {
      document: { uri: { scheme: 'output' } },
      selections: [selection],
      edit: (change: (builder: typeof edit) => void) => Promise.resolve(change(edit)),
    };
    const { say } = await open();
    say({ type: 'insert', text: 'let a;' });
    await until(() => replaced.length === 1);
    expect(replaced).toEqual(['let a;']);
  });

  it('passes code to the diff editor and writes nothing itself', async () => {
    const { applied, say } = await open();
    say({ type: 'apply', turn: 't', text: 'let a;' });
    await until(() => applied.length === 1);
    expect([applied, user.commands]).toEqual([['let a;'], []]);
  });

  it('runs the commands of its buttons and no others', async () => {
    const { say } = await open();
    say({ type: 'copy', text: 'code' });
    for (const action of ['restart', 'choose-model', 'show-log', 'new-chat', 'settings'])
      say({ type: 'action', action });
    say({ type: 'action', action: 'thinking' });
    say({ type: 'action', action: 'workbench.action.quit' });
    await until(() => user.commands.length === 6);
    expect(user.copied).toEqual(['code']);
    expect(user.commands).toEqual([
      'hearth.restartEngine',
      'hearth.chooseModel',
      'hearth.showLog',
      'hearth.newChat',
      'workbench.action.openSettings hearth',
      'hearth.thinking',
    ]);
  });
});
