// The reference server of Socket.IO as the gateway of an AIWM, with its login and its metrics beside
// it. Says each thing that happens as a line of JSON, and does what comes as a line of JSON.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Server } from "socket.io";

const nodeId = process.argv[2];
const tell = (what, data) => process.stdout.write(JSON.stringify({ what, data }) + "\n");
let given = 0;
let refusing = null;
let ackError = null;

const http = createServer((request, response) => {
  let text = "";
  request.on("data", (chunk) => (text += chunk));
  request.on("end", () => {
    tell("call", { path: request.url, body: JSON.parse(text || "null") });
    const answer = request.url.startsWith("/nodes/auth/")
      ? { accessToken: `a.b.${++given}`, expiresIn: 3600, tokenType: "Bearer" }
      : { success: true };
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer));
  });
});

// As AIWM has it, but for a pace that lets a test see pings.
const io = new Server(http, {
  transports: ["websocket"],
  pingInterval: Number(process.argv[3] ?? 25000),
  pingTimeout: Number(process.argv[4] ?? 20000),
  maxHttpBufferSize: 1000000,
});
const nodes = io.of("/ws/node");
nodes.use((socket, next) => {
  if (refusing) {
    const error = new Error(refusing);
    refusing = null;
    return next(error);
  }
  tell("join", { token: socket.handshake.auth.token });
  next();
});
nodes.on("connection", (socket) => {
  const envelope = (type, rest) => ({ type, messageId: "m", timestamp: new Date().toISOString(), ...rest });
  if (ackError) {
    socket.emit("connection.ack", envelope("connection.ack", { status: "error", error: ackError }));
    ackError = null;
    return socket.disconnect();
  }
  for (const other of nodes.sockets.values()) if (other !== socket) other.disconnect(true);
  socket.emit(
    "connection.ack",
    envelope("connection.ack", { status: "success", nodeId, controllerId: "controller-main", serverVersion: "1.0.0" }),
  );
  socket.onAny((name, payload) => {
    tell("event", { name, payload });
    if (name === "node.register") {
      const controllerInfo = { controllerId: "controller-main", heartbeatInterval: 200, metricsInterval: 60000, timezone: "UTC" };
      socket.emit("register.ack", envelope("register.ack", { data: { status: "success", nodeId, controllerInfo, pendingCommands: [] } }));
    }
  });
  socket.conn.on("packet", (packet) => packet.type === "pong" && tell("pong", null));
  socket.on("disconnect", (reason) => tell("disconnect", { reason }));
});

createInterface({ input: process.stdin }).on("line", (line) => {
  const { what, data } = JSON.parse(line);
  const sockets = [...nodes.sockets.values()];
  if (what === "emit") sockets.forEach((socket) => socket.emit(data.name, data.payload));
  if (what === "ask") {
    sockets.forEach((socket) => socket.timeout(5000).emit(data.name, data.payload, (error, ...answer) => tell("answer", { error: String(error ?? ""), answer })));
  }
  if (what === "disconnect") sockets.forEach((socket) => socket.disconnect(data.close));
  if (what === "refuse") refusing = data;
  if (what === "ackError") ackError = data;
  if (what === "restart") {
    const port = http.address().port;
    // As a process that ends does: the sockets are cut.
    for (const socket of sockets) socket.conn.transport.socket.terminate?.() ?? socket.conn.transport.socket._socket.destroy();
    http.close(() => http.listen(port, "127.0.0.1", () => tell("listening", { port })));
    http.closeAllConnections();
  }
}).on("close", () => process.exit(0));

http.listen(0, "127.0.0.1", () => tell("listening", { port: http.address().port }));
