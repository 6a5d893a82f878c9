/** Whether a call may be run: it names a tool of this question, and its arguments fit that tool's schema. */
import { Ajv } from 'ajv';
import type { ChatParams, ToolCall } from '../../engine/protocol/engineProtocol.ts';

/** As it was offered. */
type Tool = NonNullable<ChatParams['tools']>[number];

export type CheckedCall =
  | { readonly kind: 'fits'; readonly input: object }
  /** Told to the model, which may mend it. */
  | { readonly kind: 'refused'; readonly reason: string };

export function checkedCall(call: ToolCall, offered: readonly Tool[]): CheckedCall {
  const tool = offered.find(({ name }) => name === call.name);
  if (tool === undefined) {
    const names = offered.map(({ name }) => name).join(', ');
    return refused(`There is no tool '${call.name.slice(0, 100)}' for this question. Its tools are: ${names}.`);
  }
  const input = objectIn(call.arguments);
  if (input === undefined) return refused('The arguments are no JSON object.');
  const misfit = misfitOf(input, tool);
  return misfit === undefined ? { kind: 'fits', input } : refused(misfit);
}

const refused = (reason: string): CheckedCall => ({ kind: 'refused', reason });

function objectIn(json: string): object | undefined {
  try {
    const value: unknown = JSON.parse(json.trim() === '' ? '{}' : json);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function misfitOf(input: object, { parameters = {}, name }: Tool): string | undefined {
  // A draft that the validator has no copy of is read as draft 7, which VS Code's own tools are written in.
  const { $schema: _, $id: __, ...schema } = parameters;
  const ajv = new Ajv({ strict: false, validateFormats: false, logger: false });
  try {
    const validate = ajv.compile(schema);
    return validate(input)
      ? undefined
      : `The arguments do not fit the tool's schema: ${ajv.errorsText(validate.errors)}.`;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return `The schema of '${name}' cannot be checked, so it was not run: ${reason}`;
  }
}
