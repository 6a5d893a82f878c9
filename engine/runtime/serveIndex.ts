/** The indexer's end of the channel. */
import type { MessageConnection } from 'vscode-jsonrpc/node';
import type { IndexService } from '../index/repository/service.ts';
import { answering } from '../protocol/answers.ts';
import {
  indexMessages,
  mapParams,
  nameParams,
  openParams,
  pathParams,
  searchParams,
  updateParams,
} from '../protocol/indexProtocol.ts';

/** Serves `service` on a connection that does not listen yet. */
export function serveIndex(connection: MessageConnection, service: IndexService, log: (line: string) => void): void {
  const { handle, handle0 } = answering(connection, log);
  const tell = (act: () => void) => async () => {
    act();
    return null;
  };
  handle(indexMessages.open, openParams, (params) => service.open(params));
  handle0(indexMessages.state, async () => service.repository.state);
  handle0(indexMessages.rebuild, () => service.rebuild());
  handle(indexMessages.update, updateParams, async ({ paths }) => {
    service.repository.indexer.update(paths);
    return null;
  });
  handle0(
    indexMessages.rescan,
    tell(() => service.repository.indexer.rescan()),
  );
  handle0(
    indexMessages.pause,
    tell(() => service.repository.pause()),
  );
  handle0(
    indexMessages.resume,
    tell(() => service.repository.resume()),
  );
  handle(indexMessages.search, searchParams, async ({ question, limit, meaning }) =>
    meaning ? service.repository.searchByMeaning(question, limit) : service.repository.search(question, limit),
  );
  handle(indexMessages.symbols, nameParams, async ({ name, limit }) => service.repository.symbols(name, limit));
  handle(indexMessages.definitions, nameParams, async ({ name, limit }) => service.repository.definitions(name, limit));
  handle(indexMessages.references, nameParams, ({ name, limit }) => service.repository.references(name, limit));
  handle(indexMessages.outline, pathParams, async ({ path }) => service.repository.outline(path));
  handle(indexMessages.map, mapParams, async (params) => service.repository.map(params));
}
