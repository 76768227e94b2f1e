-- The requests of wrk: GET and POST in turn, with pauses. Usage: wrk ... -s wrk.lua URL -- PAUSE_MS SECONDS
--
-- The script counts the requests and the responses itself, because wrk counts the close of an idle connection as an error. wrk
-- calls `request` once more than it sends, to probe it, so `sent` begins at -1. The script stops sending some time before the
-- end, so that no request is in flight then.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   sent, answered, wrong, first, last = -1, 0, 0, 0, 0
   pause, until_ = tonumber(args[1]), os.time() + tonumber(args[2])
   text = string.rep("wrk ", 500)
   get = wrk.format("GET", "/")
   post = wrk.format("POST", "/echo", nil, text)
end

function delay()
   if os.time() >= until_ then return 3600000 end
   return pause
end

function request()
   sent = sent + 1
   if sent % 2 == 0 then return post end
   return get
end

function response(status, headers, body)
   local generation = tonumber(string.match(body, "^generation=(%d+) "))
   if status == 200 and (generation or body == text) then
      answered = answered + 1
   else
      wrong = wrong + 1
   end
   if generation then
      if first == 0 then first = generation end
      last = generation
   end
end

function done(summary, latency, requests)
   local sum = { sent = 0, answered = 0, wrong = 0 }
   local first, last = 0, 0
   for _, thread in ipairs(threads) do
      for name in pairs(sum) do sum[name] = sum[name] + thread:get(name) end
      local from, to = thread:get("first"), thread:get("last")
      if first == 0 or from < first then first = from end
      if to > last then last = to end
   end
   local errors = summary.errors
   io.write(string.format(
      '{"sent":%d,"answered":%d,"wrong":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"first":%d,"last":%d}\n',
      sum.sent, sum.answered, sum.wrong, errors.connect, errors.read, errors.write, errors.status, errors.timeout, first, last))
end
