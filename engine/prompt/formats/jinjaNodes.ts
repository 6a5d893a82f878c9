/** The few nodes of a parsed template that are looked into. The library does not export their classes. */
import type { Interpreter, parse } from '@huggingface/jinja';

export type Program = ReturnType<typeof parse>;
export type Node = NonNullable<Parameters<Interpreter['evaluate']>[0]>;
/** What a node evaluates to: `value` is a string, number, list, `Map`, function, …; `type` tells which. */
export type Value = ReturnType<Interpreter['evaluate']>;

type CallNode = Node & { readonly callee: Node; readonly args: readonly Node[] };

/** A method or filter that takes arguments, and what it is applied to. */
export interface Operation {
  readonly name: string;
  readonly operand: Node;
  readonly args: readonly Node[];
}

/** `operand.name(args)` or `operand | name(args)`. */
export function operationOf(node: Node | undefined): Operation | undefined {
  if (node === undefined) return undefined;
  const [call, operand] = isFilter(node) ? [node.filter, node.operand ?? node] : [node, undefined];
  if (!isCall(call)) return undefined;
  if (operand !== undefined) return { name: nameOf(call.callee), operand, args: call.args };
  return isMember(call.callee)
    ? { name: nameOf(call.callee.property), operand: call.callee.object, args: call.args }
    : undefined;
}

/** The expression of `name=…` and `**…`. */
export function valueOfArgument(node: Node): Node {
  if (node.type === 'KeywordArgumentExpression' && 'value' in node) return node.value as Node;
  if (node.type === 'KeywordSpreadExpression' && 'argument' in node) return node.argument as Node;
  return node;
}

export function stringLiteral(value: string): Node {
  return { type: 'StringLiteral', value } as Node;
}

function isCall(node: Node): node is CallNode {
  return node.type === 'CallExpression';
}

/** A filter block has no operand of its own: its body is one. */
function isFilter(node: Node): node is Node & { readonly filter: Node; readonly operand?: Node } {
  return node.type === 'FilterExpression' || node.type === 'FilterStatement';
}

function isMember(node: Node): node is Node & { readonly object: Node; readonly property: Node } {
  return node.type === 'MemberExpression' && !('computed' in node && node.computed === true);
}

function nameOf(node: Node): string {
  return node.type === 'Identifier' && 'value' in node ? String(node.value) : '';
}
