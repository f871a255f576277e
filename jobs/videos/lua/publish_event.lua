-- Append an event to the stream of a video and notify its followers. `data` is JSON.
-- Keeps the last 64 events, and an ended video's events for an hour.
local function publish_event(stream_key, channel, video_id, name, data)
  redis.call('XADD', stream_key, 'MAXLEN', 64, '*', 'name', name, 'data', data)
  if name == 'completed' or name == 'failed' then redis.call('EXPIRE', stream_key, 3600) end
  redis.call('PUBLISH', channel, video_id)
end
